// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import "errors"

func hostNameOfInit(string) (string, error) { return "", errors.ErrUnsupported }
