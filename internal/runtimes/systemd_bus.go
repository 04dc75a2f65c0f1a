// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"
)

const (
	// maxBusMessage is more than any answer to our questions has.
	maxBusMessage = 256 << 10
	// maxBusLine is more than any line of the authentication has.
	maxBusLine = 512
)

// errBusProtocol reports that whoever listens does not speak D-Bus.
var errBusProtocol = errors.New("not as D-Bus has it")

// busError is an error that the other side has answered with. The connection goes on.
type busError struct{ name, text string }

func (e *busError) Error() string {
	if e.text == "" {
		return e.name
	}
	return e.name + ": " + e.text
}

// busConn is a D-Bus connection for one question after the other: it has no goroutine, what it did not ask for it skips
// undecoded, and nobody can make it read a message that is larger than maxBusMessage. It is used by one goroutine at a
// time. godbus knows the format of messages; its own connections bound neither the time of the authentication nor
// messages, and panic at some that are wrong.
type busConn struct {
	conn   net.Conn
	in     *bufio.Reader
	dest   string // "" without a bus
	serial uint32
}

// dialBus connects and says who we are. direct tells that there is no bus but only systemd.
func dialBus(ctx context.Context, socket string, direct bool) (*busConn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	c := &busConn{conn: conn, in: bufio.NewReaderSize(conn, maxBusLine)}
	err = c.do(ctx, func() error {
		if err := c.authenticate(); err != nil {
			return fmt.Errorf("authentication: %w", err)
		}
		if direct {
			return nil
		}
		c.dest = "org.freedesktop.DBus"
		if _, err := c.call("/org/freedesktop/DBus", "org.freedesktop.DBus", "Hello"); err != nil {
			return err
		}
		c.dest = "org.freedesktop.systemd1"
		return nil
	})
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the connection.
func (c *busConn) Close() { c.conn.Close() }

// do calls f, whose reads and writes end with an error when ctx ends: that of ctx.
func (c *busConn) do(ctx context.Context, f func() error) error {
	deadline, _ := ctx.Deadline()
	if err := c.conn.SetDeadline(deadline); err != nil {
		return err
	}
	interrupted := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(interrupted)
		c.conn.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // closed already
	})
	err := f()
	if !stop() {
		<-interrupted // so that it does not cut short what comes next
	}
	if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return context.DeadlineExceeded
	}
	return err
}

// authenticate proves by the credentials of the socket who we are.
//
// BEGIN does not wait for OK, so that the other side gets both lines before it gets any message. systemd 252 does not look
// at a message that it has read together with BEGIN, until another one comes.
func (c *busConn) authenticate() error {
	user := hex.EncodeToString([]byte(strconv.Itoa(os.Geteuid())))
	if _, err := io.WriteString(c.conn, "\x00AUTH EXTERNAL "+user+"\r\nBEGIN\r\n"); err != nil {
		return err
	}
	line, err := c.in.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return fmt.Errorf("line of more than %d bytes: %w", maxBusLine, errBusProtocol)
	case err != nil:
		return err
	case bytes.HasPrefix(line, []byte("REJECTED")):
		return errors.New("rejected")
	case !bytes.HasPrefix(line, []byte("OK ")):
		return fmt.Errorf("%q: %w", line, errBusProtocol)
	}
	return nil
}

// call calls a method whose arguments are strings and returns what it returns, or a *busError.
func (c *busConn) call(object dbus.ObjectPath, iface, method string, args ...string) ([]any, error) {
	msg := dbus.Message{
		Type: dbus.TypeMethodCall, Flags: dbus.FlagNoAutoStart,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldPath: dbus.MakeVariant(object), dbus.FieldInterface: dbus.MakeVariant(iface), dbus.FieldMember: dbus.MakeVariant(method),
		},
	}
	if c.dest != "" {
		msg.Headers[dbus.FieldDestination] = dbus.MakeVariant(c.dest)
	}
	if len(args) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.ParseSignatureMust(strings.Repeat("s", len(args))))
		for _, arg := range args {
			msg.Body = append(msg.Body, arg)
		}
	}
	var out bytes.Buffer
	if err := msg.EncodeTo(&out, binary.LittleEndian); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	c.serial++
	binary.LittleEndian.PutUint32(out.Bytes()[8:], c.serial) // godbus lets only its own connections number messages
	if _, err := c.conn.Write(out.Bytes()); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	for {
		raw, err := readBusMessage(c.in)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", method, err)
		}
		if body, ok, err := decodeReply(raw, c.serial); ok || err != nil {
			if err != nil {
				err = fmt.Errorf("%s: %w", method, err)
			}
			return body, err
		}
	}
}

// busHeaderSize is that of the part of the header whose size is fixed.
const busHeaderSize = 16

// readBusMessage reads one message whole.
func readBusMessage(in io.Reader) ([]byte, error) {
	head := make([]byte, busHeaderSize)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	var order binary.ByteOrder
	switch head[0] {
	case 'l':
		order = binary.LittleEndian
	case 'B':
		order = binary.BigEndian
	default:
		return nil, fmt.Errorf("byte order %q: %w", head[0], errBusProtocol)
	}
	body, fields := uint64(order.Uint32(head[4:])), uint64(order.Uint32(head[12:]))
	size := (fields+7)&^7 + body
	if size > maxBusMessage {
		return nil, fmt.Errorf("message of %d bytes: %w", size, errBusProtocol)
	}
	raw := append(make([]byte, 0, busHeaderSize+size), head...)[:busHeaderSize+size]
	if _, err := io.ReadFull(in, raw[busHeaderSize:]); err != nil {
		return nil, err
	}
	return raw, nil
}

// decodeReply returns what a message has to say in reply to the call with this serial. ok is false where it is another
// message.
func decodeReply(raw []byte, serial uint32) (body []any, ok bool, err error) {
	switch dbus.Type(raw[1]) {
	case dbus.TypeMethodReply, dbus.TypeError:
	default:
		return nil, false, nil
	}
	msg, err := dbus.DecodeMessage(bytes.NewReader(raw))
	if err != nil {
		return nil, false, fmt.Errorf("%w: %w", errBusProtocol, err)
	}
	if to, _ := msg.Headers[dbus.FieldReplySerial].Value().(uint32); to != serial {
		return nil, false, nil // of a call that was given up
	}
	if msg.Type == dbus.TypeMethodReply {
		return msg.Body, true, nil
	}
	e := &busError{}
	e.name, _ = msg.Headers[dbus.FieldErrorName].Value().(string)
	if len(msg.Body) > 0 {
		e.text, _ = msg.Body[0].(string)
	}
	return nil, true, e
}
