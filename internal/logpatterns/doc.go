// SPDX-License-Identifier: Apache-2.0

// Package logpatterns groups log lines that differ only in their variable parts, and counts them.
//
// A line goes a few steps. A Joiner puts the lines of a stack trace together, and tells which says what it is (head.go). A Framer
// takes off what the logger has put around the message and tells its level. The tokenizer (token.go) makes a skeleton of the
// message: numbers, addresses, paths and all else that is variable by its shape are holes. A Miner finds the pattern of the
// skeleton, and learns from the skeletons that it has seen which words are variable too (cluster.go, gap.go). A line that was seen
// before takes one pass over its bytes and one look-up.
//
// The package never reads files and never blocks; memory is bounded by the Options given to New. Miners, Framers and
// Joiners belong to one goroutine at a time.
package logpatterns
