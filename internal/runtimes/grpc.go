// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// maxMessage bounds an answer in bytes. The verbose status of a container is some ten thousand.
const maxMessage = 16 << 20

// dialGRPC makes a client of the daemon that listens on a unix socket. The first call connects. When the daemon has gone,
// calls fail with codes.Unavailable at once; when it has come back they work again, at most a second later.
func dialGRPC(socket string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///socket", // not the path: it need not be a good URL
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		}),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithAuthority("localhost"), // servers refuse a path here
		grpc.WithNoProxy(),
		grpc.WithDisableServiceConfig(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)),
		grpc.WithIdleTimeout(0), // watchConnection would not let it be idle
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
			MinConnectTimeout: Deadline,
		}),
	)
}

// watchConnection returns nil when ctx ends, or an error when the connection broke and a new one was refused.
func watchConnection(ctx context.Context, conn *grpc.ClientConn) error {
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Idle: // it broke
			conn.Connect()
		case connectivity.TransientFailure, connectivity.Shutdown:
			if ctx.Err() == nil {
				return errConnectionLost
			}
		}
		if !conn.WaitForStateChange(ctx, state) {
			return nil
		}
	}
}

var errConnectionLost = errors.New("connection lost")

// unsupported turns the answer of a server that does not have a service into an error that is errors.ErrUnsupported.
func unsupported(err error, service string) error {
	if status.Code(err) == codes.Unimplemented {
		return fmt.Errorf("%s: %w", service, errors.ErrUnsupported)
	}
	return fmt.Errorf("%s: %w", service, err)
}

// askable tells whether an id can be part of a request: protocol buffers refuse other text, and an error would say that
// the runtime is to blame.
func askable(id string) bool { return id != "" && utf8.ValidString(id) }

// notFound turns the answer that there is no such thing into ErrNotFound.
func notFound(err error) error {
	if status.Code(err) == codes.NotFound {
		return ErrNotFound
	}
	return err
}

// isRefusal tells whether a daemon that answers cannot or will not answer this: to ask again is of no use.
func isRefusal(err error) bool {
	switch status.Code(err) {
	case codes.OK, codes.NotFound, codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return false
	}
	return true
}
