// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"unicode/utf16"
	"unicode/utf8"
)

// jsonKeyMax is the length of the longest name that jsonKeyOf knows.
const jsonKeyMax = 20

// jsonKeyOf tells what a field means by its name, in any case, and how much before others: less is better, 0 only for those without rank.
func jsonKeyOf(name []byte) (jsonKey, uint8) {
	if len(name) == 0 || len(name) > jsonKeyMax {
		return jsonOther, 0
	}
	var lower [jsonKeyMax]byte
	for i, c := range name {
		if upperByte(c) {
			c |= 0x20
		}
		lower[i] = c
	}
	switch string(lower[:len(name)]) {
	case "msg", "message":
		return jsonMessage, 1
	case "@m", "@message", "short_message", "renderedmessage":
		return jsonMessage, 2
	case "event", "log_message", "textpayload":
		return jsonMessage, 3
	case "log":
		return jsonLog, 4
	case "body", "fields.message":
		return jsonMessage, 5
	case "text":
		return jsonMessage, 14
	case "@mt", "messagetemplate", "full_message":
		return jsonMessage, 15
	case "level", "severity", "loglevel", "log.level", "lvl", "@l", "@level", "severity_text", "severitytext", "levelname", "log_level",
		"level_name":
		return jsonLevel, 1
	case "level_value", "priority", "syslog_severity":
		return jsonLevel, 3
	case "name", "label":
		return jsonLevelSub, 1
	case "levelno":
		return jsonPyLevel, 2
	case "severity_number", "severitynumber":
		return jsonOTLevel, 2
	case "s":
		return jsonShort, 4
	case "status":
		return jsonStatus, 5
	case "status_code", "statuscode", "response_code", "http.status_code", "downstreamstatus", "responsecode":
		return jsonStatus, 6
	case "method", "request_method", "path", "uri", "url", "request", "request_uri", "requestmethod", "requestpath", "http_method",
		"http.method", "http.request.method":
		return jsonRequest, 1
	case "fields", "record", "jsonpayload", "meta", "metadata", "attributes", "data":
		return jsonHolder, 1
	case "stream":
		return jsonStream, 1
	case "@t":
		return jsonCompact, 1
	}
	return jsonOther, 0
}

// jsonUnescape appends the text of a string to dst. As encoding/json it makes U+FFFD of half a surrogate pair; what is no escape is kept.
func jsonUnescape(dst, raw []byte) []byte {
	for i := 0; i < len(raw); i++ {
		c := raw[i]
		if c != '\\' || i+1 == len(raw) {
			dst = append(dst, c)
			continue
		}
		i++
		switch c = raw[i]; c {
		case '"', '\\', '/':
			dst = append(dst, c)
		case 'b':
			dst = append(dst, '\b')
		case 'f':
			dst = append(dst, '\f')
		case 'n':
			dst = append(dst, '\n')
		case 'r':
			dst = append(dst, '\r')
		case 't':
			dst = append(dst, '\t')
		case 'u':
			r := jsonRune(raw[i+1:])
			if r < 0 {
				dst = append(dst, '\\', 'u')
				continue
			}
			i += 4
			if utf16.IsSurrogate(r) {
				pair := rune(utf8.RuneError)
				if i+2 < len(raw) && raw[i+1] == '\\' && raw[i+2] == 'u' {
					pair = utf16.DecodeRune(r, jsonRune(raw[i+3:]))
				}
				if r = pair; r != utf8.RuneError {
					i += 6
				}
			}
			dst = utf8.AppendRune(dst, r)
		default:
			dst = append(dst, '\\', c)
		}
	}
	return dst
}

// jsonRune reads four hexadecimal digits; -1 means that they are not.
func jsonRune(b []byte) rune {
	if len(b) < 4 {
		return -1
	}
	var r rune
	for _, c := range b[:4] {
		switch {
		case digitByte(c):
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return -1
		}
		r = r<<4 | rune(c)
	}
	return r
}
