// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// headerTail is the most parts behind a level.
const headerTail = 6

// tail takes what stands between the level and the text: thread, logger, the place in the source. A sign behind one of them is the end.
func (h *headerScan) tail() {
	kept := 0 // where the text begins if a group with blanks in it turns out to be text
	named := false
	for n := range headerTail {
		p := h.separatorsEnd(h.p)
		if p >= len(h.b) || h.done {
			break
		}
		dashes, signs := 0, 0
		for _, c := range h.b[h.p:p] {
			switch {
			case c == '-':
				dashes++
			case !blankByte(c):
				signs++
			}
		}
		h.p = p
		if dashes >= 3 {
			h.sureName = true
		} else if n > 0 && dashes+signs > 0 {
			kept = 0
			break
		}
		times := h.times
		if !h.tailPart(p) {
			break
		}
		switch {
		case h.b[p] != '[':
			kept, named = 0, true
		case kept == 0 && !named && times == h.times && headerIsText(h.b[p:h.p]):
			kept = p
		}
	}
	if kept > 0 && !h.done {
		h.p = kept
	}
}

// headerIsText says whether a group has words in it that a message may begin with.
func headerIsText(group []byte) bool {
	inner := trimFrame(bytes.TrimRight(group[1:], "]: "))
	return bytes.IndexByte(inner, ' ') >= 0 && !startsWith(inner, "pid ") && !startsWith(inner, "client ")
}

func (h *headerScan) tailPart(p int) bool {
	b := h.b
	switch c := b[p]; {
	case c == '[':
		return h.tailGroup(p)
	case c == '(':
		return h.tailThread(p)
	case c == '<':
		return h.angle(p)
	case digitByte(c):
		return h.times == 0 && h.time(p) || h.tailNumber(p)
	case c == '*': // nginx: *123 text
		if n := digitsAt(b, p+1, 20); n > 0 && p+1+n < len(b) && b[p+1+n] == ' ' && h.times > 0 {
			h.p = p + 1 + n
			return true
		}
	case c == '#': // fluentd: #0 text
		if n := digitsAt(b, p+1, 3); n > 0 && p+1+n < len(b) && b[p+1+n] == ' ' && h.times > 0 {
			h.p = p + 1 + n
		}
	case letterByte(c) || c == '_':
		if h.times == 0 && upperByte(c) && h.time(p) {
			return true
		}
		return h.tailName(p)
	}
	return false
}

// tailGroup takes [thread], [logger], [source:12].
func (h *headerScan) tailGroup(p int) bool {
	b := h.b
	end := headerGroupEnd(b, p)
	if end == 0 || end-p > 2 && h.times == 0 && bytes.IndexByte(b[p:end], ' ') >= 0 && timeEnd(b, p+1) == 0 {
		return false
	}
	if next := blanksEnd(b, end); next >= len(b) || b[next] == '\n' {
		return false
	}
	if h.times == 0 {
		if stop, ok := h.timeGroup(p); ok {
			h.p = stop
			return true
		}
	}
	if b[p-1] != ']' { // groups that follow each other without a blank are one list
		most := 1
		if h.bracketed || h.sureName {
			most = 2
		}
		if h.groups >= most {
			return false
		}
		h.groups++
	} else if h.groups == 0 {
		h.groups = 1
	} else if !h.bracketed {
		return false
	}
	if b[end] != ' ' && b[end] != '\t' && b[end] != ':' && b[end] != '[' && b[end] != ']' && b[end] != '|' && b[end] != '-' {
		if h.times == 0 {
			return false
		}
	}
	h.p = end
	if b[end] == ':' {
		h.p++
	}
	return true
}

// tailThread takes (thread) behind or before a [group].
func (h *headerScan) tailThread(p int) bool {
	b := h.b
	end := headerGroupEnd(b, p)
	if end == 0 || end >= len(b) {
		return false
	}
	next := blanksEnd(b, end)
	if next >= len(b) || next == end && b[end] != ':' {
		return false
	}
	if h.groups == 0 && b[next] != '[' && b[next] != ':' && b[end] != ':' || levelIsThrown(b[p+1:end-1]) {
		return false
	}
	h.p = end
	return true
}

// tailNumber takes "12 --- " of Spring Boot and "12#12: " of nginx.
func (h *headerScan) tailNumber(p int) bool {
	b := h.b
	n := digitsAt(b, p, 12)
	end := p + n
	if end < len(b) && b[end] == '#' {
		if m := digitsAt(b, end+1, 12); m > 0 && startsWith(b[end+1+m:], ": ") {
			h.p = end + m + 2
			return true
		}
	}
	if n == 3 && end < len(b) && b[end] == '/' && digitsAt(b, end+1, 7) == 6 && end+7 < len(b) && b[end+7] == ' ' { // HAProxy: day of the year/time
		h.p = end + 7
		return true
	}
	if startsWith(b[end:], " --- ") {
		h.p = end
		return true
	}
	return false
}

// tailName takes the name of the logger or the place in the source, if the format says that it is one.
func (h *headerScan) tailName(p int) bool {
	b := h.b
	end, class := h.word(p)
	if i := bytes.IndexByte(b[p:end], '|'); i > 0 {
		end = p + i
	}
	next := blanksEnd(b, end)
	if next >= len(b) || end-p > 120 {
		return false
	}
	word := b[p:end]
	last := word[len(word)-1]
	if last == ']' && headerIsEvent(word) { // .NET, also with the text on the next line
		h.p, h.done = end, true
		return true
	}
	if b[next] == '\n' {
		return false
	}
	switch {
	case class&frameOther != 0 && bytes.IndexByte(word, '{') > 0:
		return h.tailSpan(p)
	case string(word) == "in" && h.times > 0: // Flask: INFO in module: text
		if stop := headerWordEnd(b, next); stop < len(b) && b[stop-1] == ':' && headerIsName(b[next:stop-1]) {
			h.p, h.done = stop, true
			return true
		}
		return false
	case class&frameDigit != 0 && headerIsCaller(word):
		h.p = end
		return true
	case last == ']' && bytes.IndexByte(word, '[') < 0:
		h.p, h.done = end, true
		return true
	case last == ':':
		return h.tailColon(word[:len(word)-1], end)
	}
	if b[next] == '[' && startsWith(b[next:], "[] ") { // Flink
		next = blanksEnd(b, next+2)
		if next >= len(b) {
			return false
		}
	}
	switch {
	case b[next] == '|' || startsWith(b[next:], "-- ") || (b[next] == '-' || b[next] == ':' || b[next] == '>') && next+1 < len(b) && b[next+1] == ' ':
		if (h.plainName || h.sureName) && headerIsName(word) || headerIsLogger(word) || headerIsModule(word) {
			h.p, h.done = h.separatorsEnd(next), true
			return true
		}
	case b[end] == '\t' && h.levelTab(p):
		if headerIsName(word) {
			h.p = end
			return true
		}
	case h.times > 0 && (b[next] == '[' || b[next] == '<') && bytes.IndexByte(word, ':') < 0 && headerIsLogger(word):
		h.p = end
		return true
	case next-end >= 2 && h.times > 0 && levelCaseOf(word) == levelUpper && headerIsName(word): // a column
		h.p, h.done = next, true
		return true
	case h.groups > 0 && bytes.Count(word, []byte{'.'}) >= 3 && headerIsLogger(word): // JUL in Tomcat
		h.p, h.done = end, true
		return true
	}
	return false
}

// tailColon takes a name that has a colon behind it.
func (h *headerScan) tailColon(name []byte, end int) bool {
	if i := bytes.LastIndexByte(name, ':'); i > 0 && i+1 < len(name) && digitsAt(name, i+1, 7) == len(name)-i-1 && headerIsName(name[:i]) { // Python: name:12:
		h.p, h.done = end, true
		return true
	}
	if h.sureName && headerIsName(name) || h.plainName && h.groups == 0 && headerIsName(name) && !headerIsProse(name) || h.isTagged(name) || headerIsCaller(name) {
		h.p, h.done = end, true
		return true
	}
	return false
}

// tailSpan takes the spans of Rust's tracing and the module behind them: request{method=GET}: app::http: text.
func (h *headerScan) tailSpan(p int) bool {
	i := bytes.Index(h.b[p:min(len(h.b), p+2*headerReach)], []byte("}: "))
	if i < 0 || h.times == 0 {
		return false
	}
	h.p = p + i + 2
	return true
}

// isTagged says whether a name with a colon behind it is that of a logger: the first words of messages have capitals and slashes too.
func (h *headerScan) isTagged(name []byte) bool {
	if !headerIsLogger(name) {
		return false
	}
	if bytes.IndexByte(name, '/') > 0 {
		return h.bracketed
	}
	return h.groups > 0 && !h.bracketed && !h.plainName || bytes.IndexByte(name, '@') < 0 && (bytes.IndexByte(name, '.') > 0 || bytes.IndexByte(name, ':') > 0)
}

// headerIsEvent knows the category and the event that .NET writes: Name.Space.Class[14].
func headerIsEvent(word []byte) bool {
	i := bytes.LastIndexByte(word, '[')
	return i > 0 && digitsAt(word, i+1, 9) == len(word)-i-2 && headerIsLogger(word[:i])
}

// levelTab says whether parts of the header are set apart by tabs (zap).
func (h *headerScan) levelTab(p int) bool { return p > 0 && h.b[p-1] == '\t' }

// headerIsCaller knows "file.go:12" with a path or without.
func headerIsCaller(word []byte) bool {
	if n := len(word); n > 0 && word[n-1] == ':' {
		word = word[:n-1]
	}
	i := bytes.LastIndexByte(word, ':')
	if i < 3 || i+1 == len(word) || digitsAt(word, i+1, 7) != len(word)-i-1 || !letterByte(word[0]) && word[0] != '/' && word[0] != '.' && word[0] != '_' {
		return false
	}
	dot := bytes.LastIndexByte(word[:i], '.')
	if dot < 1 || i-dot > 6 || lettersEnd(word, dot+1) != i {
		return false
	}
	switch string(word[dot+1 : i]) {
	case "go", "py", "rb", "js", "ts", "mjs", "cc", "cpp", "c", "h", "hpp", "java", "kt", "scala", "rs", "php", "cs", "ex", "exs", "erl", "lua", "pl", "swift":
		return true
	}
	return false
}

// headerIsName says whether a word is made of what names of loggers are made of.
func headerIsName(word []byte) bool {
	if len(word) == 0 || !letterByte(word[0]) && word[0] != '_' {
		return false
	}
	for _, c := range word {
		if !alnumByte(c) && c != '_' && c != '.' && c != '$' && c != ':' && c != '/' && c != '-' && c != '@' && c != '#' {
			return false
		}
	}
	return true
}

// headerIsProse knows words that begin a message with a colon.
func headerIsProse(word []byte) bool {
	if level, _ := levelOfWord(word); level != LevelUnknown || levelIsThrown(word) || upperByte(word[0]) && !headerIsCamel(word) {
		return true
	}
	switch string(word) {
	case "failed", "exception", "unknown", "warnings", "errors", "reason", "status", "result", "unable", "cause", "timeout", "usage":
		return true
	}
	return false
}

// headerIsLogger says whether a name can hardly be a word of a sentence: com.example.Class, crate::module, pkg/file, SomeClass.
func headerIsLogger(word []byte) bool {
	if !headerIsName(word) || levelIsThrown(word) {
		return false
	}
	for i := 1; i+1 < len(word); i++ {
		switch word[i] {
		case '.', '/', '#', '@':
			if alnumByte(word[i+1]) {
				return !bytes.Contains(word, []byte("://"))
			}
		case '$':
			return true
		case ':':
			if word[i+1] == ':' {
				return true
			}
		}
	}
	return headerIsCamel(word)
}

// headerIsModule says whether a word can be the name of a module that has a dash behind it.
func headerIsModule(word []byte) bool {
	return headerIsName(word) && (bytes.IndexByte(word, '_') >= 0 || bytes.IndexByte(word, ':') >= 0)
}
