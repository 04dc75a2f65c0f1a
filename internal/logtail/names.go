// SPDX-License-Identifier: Apache-2.0

package logtail

import (
	"path/filepath"
	"strings"
)

// isRotated says whether name is what rotation makes of base: a number, a date or .old at its end or before its extension.
// Compressed files are not: all that is in them was in a file before.
func isRotated(base, name string) bool {
	if rest, ok := strings.CutPrefix(name, base); ok {
		return isRotation(rest)
	}
	ext := filepath.Ext(base)
	rest, ok := strings.CutPrefix(name, strings.TrimSuffix(base, ext))
	if !ok || ext == "" {
		return false
	}
	rest, ok = strings.CutSuffix(rest, ext)
	return ok && isRotation(rest)
}

func isRotation(s string) bool {
	switch s {
	case ".old", ".bak", ".prev", "-old", "_old":
		return true
	}
	if len(s) < 2 || strings.IndexByte(".-_", s[0]) < 0 {
		return false
	}
	digits := false
	for i := range len(s) {
		switch c := s[i]; {
		case c >= '0' && c <= '9':
			digits = true
		case strings.IndexByte(".-_:+TZ", c) < 0:
			return false
		}
	}
	return digits
}
