// SPDX-License-Identifier: Apache-2.0

package cloudmeta

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"syscall"
)

// Failure is the kind of what went wrong with a request or its answer.
type Failure string

// The kinds of failures.
const (
	FailureTimeout     Failure = "timeout"     // no answer, or not all of it, within a second
	FailureUnreachable Failure = "unreachable" // no route, refused, closed before the answer
	FailureStatus      Failure = "status"      // an HTTP status other than 200; 404 is an answer where a value may be missing
	FailureRefused     Failure = "refused"     // not an answer of a metadata service: redirect, content type, headers, size
	FailureMalformed   Failure = "malformed"   // not what the provider documents
)

var (
	errAbsent    = errors.New("not there") // 404
	errRefused   = errors.New("not the answer of a metadata service")
	errTooLarge  = fmt.Errorf("longer than %d bytes: %w", maxAnswer, errRefused)
	errMalformed = errors.New("malformed")
)

// statusError is an answer with another HTTP status than 200 and 404.
type statusError int

func (e statusError) Error() string {
	return fmt.Sprintf("status %d %s", int(e), http.StatusText(int(e)))
}

// hasStatus says whether the answer had one of the statuses.
func hasStatus(err error, codes ...int) bool {
	var status statusError
	if !errors.As(err, &status) {
		return false
	}
	for _, code := range codes {
		if int(status) == code {
			return true
		}
	}
	return false
}

// kindOf tells the kind of an error of a request.
func kindOf(err error) Failure {
	var status statusError
	switch {
	case errors.Is(err, errMalformed):
		return FailureMalformed
	case errors.Is(err, errRefused):
		return FailureRefused
	case errors.As(err, &status), errors.Is(err, errAbsent):
		return FailureStatus
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return FailureTimeout
	}
	return FailureUnreachable
}

// isNoRoute says whether an address is out of reach for good, so that one of the other family may be tried.
func isNoRoute(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.EADDRNOTAVAIL, syscall.EAFNOSUPPORT, syscall.ENETDOWN,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}
