// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package main

import "os"

func terminalWidth(*os.File) (width int, isTerminal bool) { return 0, false }
