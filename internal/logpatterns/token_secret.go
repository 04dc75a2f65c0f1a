// SPDX-License-Identifier: Apache-2.0

package logpatterns

import "bytes"

// dropPassword takes back what stands between a colon and a word with an @.
func (z *tokenizer) dropPassword() {
	for n := 1; n < 8 && n < z.n; n++ {
		if z.last(n).space {
			return
		}
		if z.isSign(n+1, ":") {
			z.n -= n
			return
		}
	}
}

// isLettersOfKey tells whether a word without digits has the form of a key, or of hexadecimal: no word of a language.
func isLettersOfKey(w []byte) bool {
	if len(w) < 8 {
		return false
	}
	for len(w) > 0 && classes[w[0]]&classJoin != 0 {
		w = w[1:]
	}
	ups, changes, hex := 0, 0, 0
	for i, c := range w {
		switch {
		case upperByte(c):
			ups++
			if i > 0 && !upperByte(w[i-1]) {
				changes++
			}
		case c < 'a' || c > 'z':
			return false
		}
		if c |= 0x20; c <= 'f' {
			hex++
		}
	}
	return hex == len(w) || ups == len(w) && len(w) >= 16 || len(w) >= 20 && changes >= 3 && (changes*11 > len(w)*2 || ups*4 >= len(w))
}

// secretEnd finds the end of a secret, 0 if there is none but the word that tells what follows.
func secretEnd(t []byte, i int) int {
	j := i
	for j < len(t) && classes[t[j]] != classBlank && bytes.IndexByte([]byte(",;\"'`"), t[j]) < 0 {
		j++
	}
	if isSchemeName(t[i:j]) {
		return 0
	}
	return j
}

// namesSecret tells whether the last tokens are the name of a secret, of which the value follows.
func (z *tokenizer) namesSecret(space bool) bool {
	n := 1
	if z.isSign(1, "\"'`") {
		n = 2
	}
	if z.isSecretKey(n) {
		return true
	}
	if z.n < n || z.last(n).kind != tokenWord {
		return false
	}
	w := z.textOf(z.last(n))
	if isSchemeName(w) && (bytes.EqualFold(w, []byte("bearer")) || z.isSecretKey(n+1)) {
		return true
	}
	return space && len(w) > 2 && w[0] == '-' && w[1] == '-' && isSecretName(w)
}

// isSchemeName tells whether a word is a scheme of HTTP authorization.
func isSchemeName(w []byte) bool {
	switch len(w) {
	case len("basic"), len("bearer"), len("negotiate"):
	default:
		return false
	}
	switch w[0] | 0x20 {
	case 'b', 'd', 'n', 't':
	default:
		return false
	}
	return isLexical(w, isScheme) || bytes.EqualFold(w, []byte("token"))
}

// hasSecret tells whether a text in quotes has the name of a secret and its value, or an address of letters.
func hasSecret(in []byte) bool {
	if bytes.IndexByte(in, ' ') < 0 && bytes.IndexByte(in, ':') < 0 {
		return false
	}
	named := false // by the word before
	for i := 0; i < len(in); {
		if classes[in[i]] == classBlank {
			i++
			continue
		}
		from := i
		for i < len(in) && classes[in[i]] != classBlank {
			i++
		}
		w := in[from:i]
		if named || colonsEnd(in, from) > 0 {
			return true
		}
		if colon := bytes.IndexByte(w, ':'); colon > 0 && isSecretName(w[:colon]) {
			if colon+1 < len(w) {
				return true
			}
			named = true
		}
		named = named || bytes.EqualFold(w, []byte("bearer"))
	}
	return false
}

// isSecretKey tells whether the nth token from the end is a sign between the name of a secret and its value.
func (z *tokenizer) isSecretKey(n int) bool {
	if !z.isSign(n, ":=") || z.n <= n {
		return false
	}
	if z.isSign(n+1, "\"'`") && z.n > n+1 {
		n++
	}
	return z.last(n+1).kind == tokenWord && isSecretName(z.textOf(z.last(n+1)))
}

// isSecretName tells whether a key ends with the name of a secret, such as db_password.
func isSecretName(w []byte) bool {
	if len(w) > maxWord {
		return false
	}
	var low [maxWord]byte
	n := 0
	for _, c := range w {
		if c == '-' || c == '_' {
			continue
		}
		if upperByte(c) {
			c += 'a' - 'A'
		}
		low[n] = c
		n++
	}
	for _, name := range secretNames {
		if bytes.HasSuffix(low[:n], []byte(name)) {
			return true
		}
	}
	return false
}

var secretNames = [...]string{
	"password", "passwd", "passphrase", "pwd", "secret", "token", "apikey", "accesskey", "secretkey", "privatekey",
	"authorization", "credential", "credentials", "cookie", "sessionid", "auth",
}
