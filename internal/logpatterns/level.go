// SPDX-License-Identifier: Apache-2.0

package logpatterns

// Level is how severe a line says it is.
type Level uint8

// Levels, from the one that says nothing to the worst.
const (
	LevelUnknown  Level = iota
	LevelDebug          // debug, trace, verbose
	LevelInfo           // info, notice
	LevelWarning        // warning
	LevelError          // error, severe
	LevelCritical       // critical, fatal, alert, emergency, panic
	NumLevels           // how many there are
)

// String returns the level in lower case, as it is exported.
func (l Level) String() string {
	switch l {
	case LevelDebug:
		return "debug"
	case LevelInfo:
		return "info"
	case LevelWarning:
		return "warning"
	case LevelError:
		return "error"
	case LevelCritical:
		return "critical"
	}
	return "unknown"
}

// levelWordMax is the length of the longest word that levelOfWord knows.
const levelWordMax = len("informational")

// levelLengths has for each first letter (in the lower five bits of its code) the lengths of the words of levelOfWord, as bits.
var levelLengths = [32]uint16{
	'a' & 31: 1 << 5,
	'c' & 31: 1<<4 | 1<<6 | 1<<8,
	'd' & 31: 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7,
	'e' & 31: 1<<3 | 1<<4 | 1<<5 | 1<<9,
	'f' & 31: 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7,
	'i' & 31: 1<<3 | 1<<4 | 1<<11 | 1<<13,
	'l' & 31: 1 << 3,
	'n' & 31: 1<<3 | 1<<4 | 1<<6,
	'p' & 31: 1<<4 | 1<<5,
	's' & 31: 1<<4 | 1<<5 | 1<<6 | 1<<7,
	't' & 31: 1<<3 | 1<<4 | 1<<5,
	'v' & 31: 1<<3 | 1<<4 | 1<<7,
	'w' & 31: 1<<3 | 1<<4 | 1<<7,
}

// levelOfWord returns the level that a logger means by a word, in any case. Common words mean a level also where they stand bare; the
// others are ordinary words too and need a bracket, a colon or a key.
func levelOfWord(word []byte) (level Level, common bool) {
	if len(word) < 3 || len(word) > levelWordMax || levelLengths[word[0]&0x1f]>>len(word)&1 == 0 {
		return LevelUnknown, false
	}
	var lower [levelWordMax]byte
	for i, c := range word {
		lower[i] = c | 0x20 // no level has anything but letters: what else it changes does not matter
	}
	switch string(lower[:len(word)]) {
	case "info", "inf", "information":
		return LevelInfo, true
	case "debug", "trace", "dbg", "trc", "vrb", "debu", "verbose":
		return LevelDebug, true
	case "warn", "warning", "wrn":
		return LevelWarning, true
	case "error", "err", "erro", "eror", "severe":
		return LevelError, true
	case "fatal", "critical", "crit", "ftl", "fata", "emerg":
		return LevelCritical, true
	case "notice", "informational", "note", "log", "system", "success", "default", "ntc":
		return LevelInfo, false
	case "fine", "finer", "finest", "config", "spam", "silly", "dbug", "trce", "trac", "verb":
		return LevelDebug, false
	case "fail", "failure":
		return LevelError, false
	case "alert", "panic", "emergency", "pani", "dpanic":
		return LevelCritical, false
	}
	return LevelUnknown, false
}

// levelOfLetter returns the level of glog, Android, MongoDB and others that write one letter.
func levelOfLetter(c byte) Level {
	switch c {
	case 'V', 'D', 'T':
		return LevelDebug
	case 'I', 'N':
		return LevelInfo
	case 'W':
		return LevelWarning
	case 'E':
		return LevelError
	case 'F', 'C', 'A':
		return LevelCritical
	}
	return LevelUnknown
}

// levelOfSyslog returns the level of a severity of RFC 5424, section 6.2.1.
func levelOfSyslog(severity int) Level {
	switch {
	case severity < 0 || severity > 7:
		return LevelUnknown
	case severity <= 2:
		return LevelCritical
	case severity == 3:
		return LevelError
	case severity == 4:
		return LevelWarning
	case severity <= 6:
		return LevelInfo
	}
	return LevelDebug
}

// levelOfNumber returns the level of a number in a field: 0..7 is syslog's (GELF, journald), 10..60 that of bunyan and pino, 100..600
// Monolog's, from 5000 that of logback.
func levelOfNumber(n int) Level {
	switch {
	case n < 0:
		return LevelUnknown
	case n <= 7:
		return levelOfSyslog(n)
	case n >= 10 && n < 70:
		return levelOfStep(n/10, 3)
	case n >= 100 && n < 700:
		if n >= 500 {
			return LevelCritical
		}
		return levelOfStep(n/100, 2)
	case n >= 5000 && n <= 50000:
		return levelOfStep(n/10000, 2)
	}
	return LevelUnknown
}

// levelOfStep returns the level of a scale with one step per level on which info has the number given.
func levelOfStep(n, info int) Level {
	return min(max(Level(max(n-info+int(LevelInfo), 0)), LevelDebug), LevelCritical)
}

// levelOfStatus returns the level of an HTTP response.
func levelOfStatus(status int) Level {
	switch {
	case status < 100 || status > 599:
		return LevelUnknown
	case status >= 500:
		return LevelError
	case status >= 400:
		return LevelWarning
	}
	return LevelInfo
}
