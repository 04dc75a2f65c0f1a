// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "strings"

// wordFlags is what is known of a word by itself.
type wordFlags uint16

const (
	isStop    wordFlags = 1 << iota // a word of grammar: never a value
	isEvent                         // tells what happened: seldom a value
	isContext                       // a value is likely to follow
	isCause                         // a text that tells a cause is likely to follow
	isUnit                          // of a number before it
	isDate                          // part of a date beside a number
	isMethod                        // of HTTP, before a path
	isKind                          // the key of a value that tells what kind of line it is
	isOdd                           // not a plain word: has signs in it, or capital letters behind the first
	isBool
	isScheme // of HTTP authorization, before a secret
)

// lexicon has the English words that tell more than others do. All are words of grammar, units, dates, and the verbs and nouns
// that any program logs; none is of a program's own.
var lexicon = makeLexicon(map[wordFlags]string{
	isStop: `the a an of to in on at by for from with and or not no is are was were be been has have had will would cannot can
		could should than as into over under after before while when if because due via per this that these those it its all
		any but so does did do don't can't couldn't isn't doesn't which who we you i`,
	isEvent: `hit miss up down on off ok open close start stop begin end lost found sent set unset get put add remove create
		delete update enable disable success failure fail done lock unlock attach detach join leave left login logout connect
		disconnect accept reject allow deny grant revoke bind unbind mount unmount load unload register unregister subscribe
		unsubscribe acquire release send receive got began came went ran run became gone new old true false yes no error
		warning info debug critical succeeded failed won in out rx tx validate verify exec pull push fetch apply commit
		rollback init reset restart resume suspend scale drain schedule`,
	isContext: `for from to by of on in at user service host named called as with into via using per against node pod topic
		queue table key name type state status job task plugin role group index bucket channel client server database schema
		zone region tenant account cluster stage`,
	isCause: `error err reason cause because exception failure message msg detail details status`,
	isUnit: `b kb mb gb tb kib mib gib tib byte bytes ms us µs ns s sec secs second seconds m min mins minute minutes h hour hours
		d day days kbytes mbytes msec msecs millis milliseconds`,
	isDate: `jan feb mar apr may jun jul aug sep oct nov dec mon tue wed thu fri sat sun monday tuesday wednesday thursday friday
		saturday sunday utc gmt pdt pst est edt cst cdt cet cest january february march april june july august september
		october november december`,
	isKind:   `type event action msg op operation kind evt`,
	isBool:   `true false`,
	isScheme: `bearer basic digest negotiate`,
})

// maxLexicon is the length of the longest word in the lexicon.
const maxLexicon = 16

// lexiconTable finds words by their small letters, 8 in each half.
type lexiconTable [1 << lexiconBits]struct {
	half  [2]uint64
	flags wordFlags
}

const lexiconBits = 11

func makeLexicon(lists map[wordFlags]string) *lexiconTable {
	t := &lexiconTable{}
	for flag, list := range lists {
		for _, w := range strings.Fields(list) {
			var half [2]uint64
			for i := range len(w) {
				half[i>>3] |= uint64(w[i]) << (i & 7 * 8)
			}
			e := &t[t.find(half)]
			e.half = half
			e.flags |= flag
		}
	}
	return t
}

// find returns the place of a word, or that where it would be.
func (t *lexiconTable) find(half [2]uint64) uint64 {
	for i := (half[0] ^ half[1]*mixB) * mixA >> (64 - lexiconBits); ; i = (i + 1) % (1 << lexiconBits) {
		if e := &t[i]; e.half == half || e.half[0] == 0 {
			return i
		}
	}
}

// flagsOf tells what is known of a word.
func flagsOf(w []byte) wordFlags {
	var flags wordFlags
	var half [2]uint64
	plain, upper := true, true
	for i, c := range w {
		switch {
		case c >= 'a' && c <= 'z':
			upper = false
		case c >= 'A' && c <= 'Z':
			if i > 0 {
				flags |= isOdd
			}
			c += 'a' - 'A'
		case c == '-', c == '_', c == '.', c == '/', c == '\\', c == ',', c == '@', c == ':':
			flags |= isOdd
			plain = false
		default:
			plain = false
		}
		if i < maxLexicon {
			half[i>>3] |= uint64(c) << (i & 7 * 8)
		}
	}
	if plain && hasVerbEnding(w) {
		flags |= isEvent
	}
	if len(w) > maxLexicon || len(w) == 0 {
		return flags
	}
	flags |= lexicon[lexicon.find(half)].flags
	if upper && plain {
		switch string(w) {
		case "GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS":
			flags |= isMethod
		}
	}
	return flags
}

// hasVerbEnding tells whether a word may be a participle.
func hasVerbEnding(w []byte) bool {
	n := len(w)
	if n < 5 {
		return false
	}
	switch w[n-1] | 0x20 {
	case 'd':
		return w[n-2]|0x20 == 'e'
	case 'g':
		return w[n-2]|0x20 == 'n' && w[n-3]|0x20 == 'i'
	}
	return false
}

// isEventName tells whether the first or last part of a CamelCase word is an event, as in StartContainer.
func isEventName(w []byte) bool {
	first, last := 0, 0
	for i := 1; i < len(w); i++ {
		if upperByte(w[i]) && w[i-1] >= 'a' && w[i-1] <= 'z' {
			if first == 0 {
				first = i
			}
			last = i
		}
	}
	return first > 0 && (isLexical(w[:first], isEvent) || isLexical(w[last:], isEvent))
}

func isLexical(w []byte, flag wordFlags) bool { return flagsOf(w)&flag != 0 }
