// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// fakeBus is a systemd at its private socket, or a bus with systemd on it. It says at the wire what systemd 252 says, and
// refuses what changes anything.
type fakeBus struct {
	t        *testing.T
	socket   string
	direct   bool
	listener net.Listener
	wg       sync.WaitGroup

	// To be set before anybody connects.
	units  map[string]Unit
	auth   string // answer to AUTH; "" for none, "-" to close
	absent bool   // no systemd on the bus

	mu      sync.Mutex
	answer  func(*dbus.Message) []byte // nil for asSystemd; nil bytes close the connection
	conns   map[net.Conn]bool
	dialled int
	calls   int
}

func startFakeBus(t *testing.T, name string) *fakeBus {
	t.Helper()
	b := &fakeBus{t: t, socket: socketDir(t) + "/" + name, direct: name == "private", auth: "OK 1234deadbeef\r\n", conns: map[net.Conn]bool{}}
	var err error
	if b.listener, err = net.Listen("unix", b.socket); err != nil {
		t.Fatal(err)
	}
	b.wg.Go(func() {
		for {
			conn, err := b.listener.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns[conn] = true
			b.dialled++
			b.mu.Unlock()
			b.wg.Go(func() {
				b.serve(conn)
				conn.Close()
				b.mu.Lock()
				delete(b.conns, conn)
				b.mu.Unlock()
			})
		}
	})
	t.Cleanup(b.stop)
	return b
}

// stop closes everything and waits.
func (b *fakeBus) stop() {
	b.listener.Close()
	b.disconnect()
	b.wg.Wait()
}

func (b *fakeBus) disconnect() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for conn := range b.conns {
		conn.Close()
	}
}

func (b *fakeBus) setAnswer(f func(*dbus.Message) []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answer = f
}

func (b *fakeBus) count(n *int) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *n
}

func (b *fakeBus) connections() int { return b.count(&b.dialled) }
func (b *fakeBus) asked() int       { return b.count(&b.calls) }

func (b *fakeBus) await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func (b *fakeBus) awaitAsked(t *testing.T, n int) {
	t.Helper()
	b.await(t, "questions", func() bool { return b.asked() >= n })
}

func (b *fakeBus) awaitOpen(t *testing.T, n int) {
	t.Helper()
	b.await(t, "connections to end", func() bool {
		b.mu.Lock()
		defer b.mu.Unlock()
		return len(b.conns) == n
	})
}

// serve speaks with one client.
func (b *fakeBus) serve(conn net.Conn) {
	in := bufio.NewReader(conn)
	if first, err := in.ReadByte(); err != nil || first != 0 {
		return
	}
	for {
		line, err := in.ReadString('\n')
		if err != nil || b.auth == "-" {
			return
		}
		if line == "BEGIN\r\n" {
			if in.Buffered() > 0 {
				b.t.Error("a message came together with BEGIN, systemd would not look at it")
			}
			break
		}
		if !strings.HasPrefix(line, "AUTH EXTERNAL ") || !strings.HasSuffix(line, "\r\n") {
			b.t.Errorf("authentication: got %q", line)
			return
		}
		if _, err := io.WriteString(conn, b.auth); err != nil {
			return
		}
	}
	for {
		msg, err := dbus.DecodeMessage(in)
		if err != nil {
			return
		}
		b.mu.Lock()
		b.calls++
		answer := b.answer
		b.mu.Unlock()
		if answer == nil {
			answer = b.asSystemd
		}
		out := answer(msg)
		if out == nil {
			return
		}
		// A signal that nobody has asked for goes first; godbus would panic at this one.
		if _, err := conn.Write(append(signal(uint32(7)), out...)); err != nil {
			return
		}
	}
}

func member(m *dbus.Message) string { s, _ := m.Headers[dbus.FieldMember].Value().(string); return s }

// hang answers with something else.
func hang(*dbus.Message) []byte { return signal("still there") }

// asSystemd answers as systemd does, or as the bus.
func (b *fakeBus) asSystemd(m *dbus.Message) []byte {
	dest, _ := m.Headers[dbus.FieldDestination].Value().(string)
	object, _ := m.Headers[dbus.FieldPath].Value().(dbus.ObjectPath)
	iface, _ := m.Headers[dbus.FieldInterface].Value().(string)
	question := []string{string(object), iface, member(m)}
	for _, arg := range m.Body {
		question = append(question, arg.(string))
	}
	asked := strings.Join(question, " ")
	if b.direct != (dest == "") {
		b.t.Errorf("%s: destination %q", asked, dest)
	}
	if !b.direct && asked == "/org/freedesktop/DBus org.freedesktop.DBus Hello" && dest == "org.freedesktop.DBus" {
		return reply(m, ":1.7")
	}
	if b.absent {
		return refusal(m, "org.freedesktop.DBus.Error.ServiceUnknown", "The name org.freedesktop.systemd1 was not provided by any .service files")
	}
	const unitPath = "/org/freedesktop/systemd1/unit/"
	switch {
	case asked == "/org/freedesktop/systemd1 org.freedesktop.DBus.Properties Get org.freedesktop.systemd1.Manager Version":
		return reply(m, dbus.MakeVariant("252.38-1~deb12u1"))
	case strings.HasPrefix(asked, "/org/freedesktop/systemd1 org.freedesktop.systemd1.Manager GetUnit "):
		name := question[3]
		if _, ok := b.units[name]; !ok {
			return refusal(m, "org.freedesktop.systemd1.NoSuchUnit", "Unit "+name+" not loaded.")
		}
		return reply(m, dbus.ObjectPath(unitPath+busLabel(name)))
	}
	for name, unit := range b.units {
		triggers := unit.TriggeredBy
		if triggers == nil {
			triggers = []string{}
		}
		switch asked {
		case unitPath + busLabel(name) + " org.freedesktop.DBus.Properties Get org.freedesktop.systemd1.Service Type":
			return reply(m, dbus.MakeVariant(unit.Type))
		case unitPath + busLabel(name) + " org.freedesktop.DBus.Properties Get org.freedesktop.systemd1.Unit TriggeredBy":
			return reply(m, dbus.MakeVariant(triggers))
		}
	}
	b.t.Errorf("asked %s", asked)
	return refusal(m, "org.freedesktop.DBus.Error.UnknownMethod")
}

// busLabel escapes a name as systemd does for the path of its object.
func busLabel(name string) string {
	var s strings.Builder
	for _, c := range []byte(name) {
		if c >= 'a' && c <= 'z' {
			s.WriteByte(c)
		} else {
			s.WriteString("_" + string("0123456789abcdef"[c>>4]) + string("0123456789abcdef"[c&15]))
		}
	}
	return s.String()
}

// reply is the answer to a call.
func reply(call *dbus.Message, body ...any) []byte {
	return encodeMessage(dbus.TypeMethodReply, map[dbus.HeaderField]dbus.Variant{dbus.FieldReplySerial: dbus.MakeVariant(call.Serial())}, body...)
}

// refusal is an error in answer to a call.
func refusal(call *dbus.Message, name string, text ...any) []byte {
	return encodeMessage(dbus.TypeError, map[dbus.HeaderField]dbus.Variant{
		dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()), dbus.FieldErrorName: dbus.MakeVariant(name),
	}, text...)
}

func signal(body ...any) []byte {
	return encodeMessage(dbus.TypeSignal, map[dbus.HeaderField]dbus.Variant{
		dbus.FieldPath: dbus.MakeVariant(dbus.ObjectPath("/org/freedesktop/DBus")), dbus.FieldInterface: dbus.MakeVariant("org.freedesktop.DBus"),
		dbus.FieldMember: dbus.MakeVariant("NameLost"), dbus.FieldSender: dbus.MakeVariant("org.freedesktop.DBus"),
	}, body...)
}

func encodeMessage(kind dbus.Type, headers map[dbus.HeaderField]dbus.Variant, body ...any) []byte {
	if len(body) > 0 {
		headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
	}
	var out bytes.Buffer
	if err := (&dbus.Message{Type: kind, Headers: headers, Body: body}).EncodeTo(&out, binary.LittleEndian); err != nil {
		os.Stderr.WriteString(err.Error())
		return nil
	}
	out.Bytes()[8] = 1 // any number will do for it
	return out.Bytes()
}
