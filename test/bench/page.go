// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"strconv"
	"strings"
)

// eachSample calls fn for each sample of a page in Prometheus's text format. labels is what is between the braces. Pages
// of the benches are too large for a parser that makes values of all.
func eachSample(page []byte, fn func(name, labels string, value float64)) {
	for line := range bytes.Lines(page) {
		line = bytes.TrimSpace(line)
		space := bytes.LastIndexByte(line, ' ')
		if space < 0 || line[0] == '#' {
			continue
		}
		value, err := strconv.ParseFloat(string(line[space+1:]), 64)
		if err != nil {
			continue
		}
		name, labels, _ := strings.Cut(string(line[:space]), "{")
		fn(name, strings.TrimSuffix(labels, "}"), value)
	}
}

// labelOf finds one label.
func labelOf(labels, name string) (string, bool) {
	for i := 0; i < len(labels); {
		at := strings.Index(labels[i:], name+`="`)
		if at < 0 {
			return "", false
		}
		at += i
		value := labels[at+len(name)+2:]
		if at == 0 || labels[at-1] == ',' {
			value, _, _ = strings.Cut(value, `"`)
			return value, true
		}
		i = at + 1
	}
	return "", false
}
