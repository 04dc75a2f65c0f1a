// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// busModes are the two ways to systemd, by the name of the socket.
var busModes = map[string]string{"direct": "private", "bus": "system_bus_socket"}

func unitRef(p string) cgroups.Ref { return cgroups.ParsePath(p) }

// openSystemd connects to a fakeBus, with a deadline for the whole test.
func openSystemd(t *testing.T, socket string) *systemd {
	t.Helper()
	rt, err := newSystemd(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rt.Close() })
	return rt.(*systemd)
}

func TestUnitsAreToldByTheirRealNames(t *testing.T) {
	const dashed = `dev-disk-by\x2duuid-0d6e.service`
	units := map[string]Unit{
		"nginx.service":              {Type: "notify"},
		"logrotate.service":          {Type: "oneshot", TriggeredBy: []string{"logrotate.timer"}},
		"docker.service":             {Type: "notify", TriggeredBy: []string{"docker.socket"}},
		"postgresql@14-main.service": {Type: "forking"},
		"postgresql@15-main.service": {Type: "notify"},
		dashed:                       {Type: "simple"},
		"_odd.service":               {Type: "exec"},
		"user@1000.service":          {Type: "notify"},
		"many.service":               {Type: "oneshot", TriggeredBy: strings.Fields(strings.Repeat("a.timer ", maxTriggers+1))},
	}
	many := Unit{Type: "oneshot", TriggeredBy: units["many.service"].TriggeredBy[:maxTriggers]}
	for mode, name := range busModes {
		t.Run(mode, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			bus := startFakeBus(t, name)
			bus.units = units
			s := openSystemd(t, bus.socket)
			for _, tt := range []struct {
				path string
				want Info
				err  error
			}{
				{"/system.slice/nginx.service", Info{ID: "nginx.service", Name: "nginx.service", Unit: units["nginx.service"]}, nil},
				{"/../../system.slice/nginx.service", Info{ID: "nginx.service", Name: "nginx.service", Unit: units["nginx.service"]}, nil},
				{"/system.slice/logrotate.service", Info{ID: "logrotate.service", Name: "logrotate.service", Unit: units["logrotate.service"]}, nil},
				{"/system.slice/docker.service", Info{ID: "docker.service", Name: "docker.service", Unit: units["docker.service"]}, nil},
				{
					"/system.slice/system-postgresql.slice/postgresql@15-main.service",
					Info{ID: "postgresql@15-main.service", Name: "postgresql@15-main.service", Unit: units["postgresql@15-main.service"]}, nil,
				},
				{
					"/system.slice/system-postgresql.slice/postgresql@14-main.service",
					Info{ID: "postgresql@14-main.service", Name: "postgresql@14-main.service", Unit: units["postgresql@14-main.service"]}, nil,
				},
				{"/system.slice/" + dashed, Info{ID: "dev-disk-by-uuid-0d6e.service", Name: dashed, Unit: units[dashed]}, nil},
				{"/system.slice/__odd.service", Info{ID: "_odd.service", Name: "_odd.service", Unit: units["_odd.service"]}, nil},
				{"/system.slice/many.service", Info{ID: "many.service", Name: "many.service", Unit: many}, nil},
				{
					"/user.slice/user-1000.slice/user@1000.service",
					Info{ID: "user@1000.service", Name: "user@1000.service", Unit: units["user@1000.service"]}, nil,
				},
				{"/system.slice/gone.service", Info{}, ErrNotFound},
			} {
				got, err := s.Inspect(t.Context(), unitRef(tt.path))
				if diff := cmp.Diff(tt.want, got) + cmp.Diff(tt.err, err, cmpopts.EquateErrors()); diff != "" {
					t.Errorf("%s: %s", tt.path, diff)
				}
			}
			if n := bus.connections(); n != 1 {
				t.Errorf("%d connections, want 1", n)
			}
		})
	}
}

// TestOthersAreNotAskedFor checks that no question is asked for what the system's systemd cannot know.
func TestOthersAreNotAskedFor(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	bus := startFakeBus(t, "private")
	s := openSystemd(t, bus.socket)
	asked := bus.asked()
	for _, ref := range []cgroups.Ref{
		{},
		unitRef("/docker/8f3b6f1c2d4e5a60718293a4b5c6d7e8f90123456789abcdef0123456789abcd"),
		unitRef("/user.slice/user-1000.slice/user@1000.service/app.slice/nginx.service"),
		unitRef("/user.slice/user-1000.slice/user@1000.service/nginx.service"),
		{Kind: cgroups.Systemd, ID: "nginx.service"},
		{Kind: cgroups.Systemd, ID: "nginx.scope", Path: "/system.slice/nginx.scope"},
		{Kind: cgroups.Systemd, ID: "\xff.service", Path: "/system.slice/\xff.service"},
		{Kind: cgroups.Systemd, ID: "a b.service", Path: "/system.slice/a b.service"},
		{Kind: cgroups.Systemd, ID: "long.service", Path: "/system.slice/" + strings.Repeat("a", 248) + ".service"},
	} {
		if got, err := s.Inspect(t.Context(), ref); !errors.Is(err, ErrNotFound) || !cmp.Equal(got, Info{}) {
			t.Errorf("%+v: got %+v, %v", ref, got, err)
		}
	}
	if n := bus.asked() - asked; n != 0 {
		t.Errorf("asked %d questions, want none", n)
	}
}

// TestSystemdThatIsNotThere checks that opening fails in time, and with the reason.
func TestSystemdThatIsNotThere(t *testing.T) {
	for _, tt := range []struct {
		name, socket string
		behave       func(*fakeBus)
		want         error
		text         string
	}{
		{name: "nobody listens", socket: "private", behave: func(b *fakeBus) { b.stop() }, want: os.ErrNotExist},
		{name: "rejected", socket: "private", behave: func(b *fakeBus) { b.auth = "REJECTED EXTERNAL\r\n" }, text: "rejected"},
		{name: "not D-Bus", socket: "private", behave: func(b *fakeBus) { b.auth = "HTTP/1.1 400 Bad Request\r\n" }, want: errBusProtocol},
		{name: "endless line", socket: "private", behave: func(b *fakeBus) { b.auth = strings.Repeat("OK ", 1<<20) }, want: errBusProtocol},
		{name: "closes at once", socket: "private", behave: func(b *fakeBus) { b.auth = "-" }, want: io.EOF},
		{name: "hangs before all", socket: "private", behave: func(b *fakeBus) { b.auth = "" }, want: context.DeadlineExceeded},
		{name: "hangs after authentication", socket: "private", behave: func(b *fakeBus) { b.answer = hang }, want: context.DeadlineExceeded},
		{name: "hello hangs", socket: "system_bus_socket", behave: func(b *fakeBus) { b.answer = hang }, want: context.DeadlineExceeded},
		{
			name: "bus without systemd", socket: "system_bus_socket", text: "org.freedesktop.DBus.Error.ServiceUnknown",
			behave: func(b *fakeBus) { b.absent = true },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			bus := startFakeBus(t, tt.socket)
			tt.behave(bus)
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			rt, err := newSystemd(ctx, bus.socket)
			if rt != nil || err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, %v, want %v %s", rt, err, tt.want, tt.text)
			}
		})
	}
}

// TestWrongAnswers checks that each of them is an error, that it is one in time, and that the next question is answered.
func TestWrongAnswers(t *testing.T) {
	ref := unitRef("/system.slice/nginx.service")
	for _, tt := range []struct {
		name   string
		answer func(*dbus.Message) []byte
		want   error
		text   string
		lost   bool
	}{
		{name: "hangs", answer: hang, want: context.DeadlineExceeded, lost: true},
		{name: "closes", answer: func(*dbus.Message) []byte { return nil }, want: io.EOF, lost: true},
		{name: "half a message", answer: func(m *dbus.Message) []byte { return reply(m, "a")[:20] }, want: context.DeadlineExceeded, lost: true},
		{name: "garbage", answer: func(*dbus.Message) []byte { return bytes.Repeat([]byte("garbage "), 100) }, want: errBusProtocol, lost: true},
		{name: "too large", answer: func(m *dbus.Message) []byte { return reply(m, strings.Repeat("a", maxBusMessage)) }, want: errBusProtocol, lost: true},
		{
			name: "sizes that overflow", want: errBusProtocol, lost: true,
			answer: func(*dbus.Message) []byte {
				return []byte("l\x02\x00\x01\xff\xff\xff\xff\x01\x00\x00\x00\xff\xff\xff\xff")
			},
		},
		{name: "wrong header", answer: func(m *dbus.Message) []byte {
			raw := reply(m, "a")
			raw[busHeaderSize] = 0x7f
			return raw
		}, want: errBusProtocol, lost: true},
		{name: "no object", answer: func(m *dbus.Message) []byte { return reply(m, uint32(47)) }, want: errBusProtocol, lost: true},
		{name: "nothing", answer: func(m *dbus.Message) []byte { return reply(m) }, want: errBusProtocol, lost: true},
		{name: "refused", answer: func(m *dbus.Message) []byte {
			return refusal(m, "org.freedesktop.DBus.Error.AccessDenied", "not you")
		}, text: "org.freedesktop.DBus.Error.AccessDenied: not you"},
		{name: "no name of a unit", answer: func(m *dbus.Message) []byte {
			return refusal(m, "org.freedesktop.DBus.Error.InvalidArgs")
		}, want: ErrNotFound},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Cleanup(func() { goleak.VerifyNone(t) })
			bus := startFakeBus(t, "private")
			bus.units = map[string]Unit{"nginx.service": {Type: "notify"}}
			s := openSystemd(t, bus.socket)
			bus.setAnswer(func(m *dbus.Message) []byte {
				if member(m) == "GetUnit" {
					return tt.answer(m)
				}
				return bus.asSystemd(m)
			})
			began := time.Now()
			_, err := s.Inspect(t.Context(), ref)
			if err == nil || tt.want != nil && !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
				t.Errorf("got %v, want %v %s", err, tt.want, tt.text)
			}
			if took := time.Since(began); took > Deadline+time.Second {
				t.Errorf("took %s, deadline is %s", took, Deadline)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := s.Follow(ctx, nil); (err != nil) != tt.lost {
				t.Errorf("Follow: got %v, want an error: %v", err, tt.lost)
			}
			bus.setAnswer(nil)
			if got, err := s.Inspect(t.Context(), ref); err != nil || got.Unit.Type != "notify" {
				t.Errorf("afterwards: got %+v, %v", got, err)
			}
		})
	}
}

// TestSystemdThatStartsAnew checks that a connection that has ended in the meantime is nobody's loss.
func TestSystemdThatStartsAnew(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	bus := startFakeBus(t, "private")
	bus.units = map[string]Unit{"nginx.service": {Type: "notify"}}
	s := openSystemd(t, bus.socket)
	ref := unitRef("/system.slice/nginx.service")
	for round := range 3 {
		bus.disconnect()
		if _, err := s.Inspect(t.Context(), ref); err != nil {
			t.Fatal(round, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := s.Follow(ctx, nil); err != nil {
		t.Error(err)
	}

	following := make(chan error, 1)
	go func() { following <- s.Follow(t.Context(), nil) }()
	bus.stop()
	if _, err := s.Inspect(t.Context(), ref); !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want that nobody listens", err)
	}
	if err := <-following; err == nil {
		t.Error("Follow has not told that systemd is gone")
	}
}

func TestSystemdIsLeftAloneWhenIdle(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	bus := startFakeBus(t, "private")
	bus.units = map[string]Unit{"nginx.service": {Type: "notify"}}
	s := openSystemd(t, bus.socket)
	bus.awaitOpen(t, 1)
	s.closeIdle()
	bus.awaitOpen(t, 0)
	if _, err := s.Inspect(t.Context(), unitRef("/system.slice/nginx.service")); err != nil {
		t.Error(err)
	}
	if n := bus.connections(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// TestSystemdIsAskedByMany checks that questions do not get each other's answers, and that all end when it is closed.
func TestSystemdIsAskedByMany(t *testing.T) {
	t.Cleanup(func() { goleak.VerifyNone(t) })
	bus := startFakeBus(t, "system_bus_socket")
	bus.units = map[string]Unit{"a.service": {Type: "a"}, "b.service": {Type: "b"}}
	s := openSystemd(t, bus.socket)
	var wg sync.WaitGroup
	for i := range 8 {
		name := string("ab"[i%2])
		wg.Go(func() {
			for range 20 {
				if got, err := s.Inspect(t.Context(), unitRef("/system.slice/"+name+".service")); err != nil || got.Unit.Type != name {
					t.Errorf("%s: got %+v, %v", name, got, err)
				}
			}
		})
	}
	wg.Wait()

	asked := bus.asked()
	bus.setAnswer(hang)
	ctx, cancel := context.WithCancel(t.Context())
	results := make(chan error, 3)
	go func() { // is cut short by its own context
		_, err := s.Inspect(ctx, unitRef("/system.slice/a.service"))
		results <- err
	}()
	bus.awaitAsked(t, asked+1)
	cancel()
	if err := <-results; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	for range 2 { // one asks, the other waits for it
		go func() {
			_, err := s.Inspect(t.Context(), unitRef("/system.slice/a.service"))
			results <- err
		}()
	}
	bus.awaitAsked(t, asked+2) // Hello
	following := make(chan error, 1)
	go func() { following <- s.Follow(t.Context(), nil) }()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-results; !errors.Is(err, errSystemdClosed) {
			t.Errorf("got %v, want %v", err, errSystemdClosed)
		}
	}
	if err := <-following; err != nil {
		t.Errorf("Follow: %v", err)
	}
	if _, err := s.Inspect(t.Context(), unitRef("/system.slice/a.service")); !errors.Is(err, errSystemdClosed) {
		t.Errorf("got %v, want %v", err, errSystemdClosed)
	}
}

// FuzzBusMessage checks that nothing that comes along can do harm.
func FuzzBusMessage(f *testing.F) {
	call := &dbus.Message{}
	f.Add(reply(call, dbus.ObjectPath("/a")))
	f.Add(reply(call, dbus.MakeVariant([]string{"a.timer"})))
	f.Add(refusal(call, "a.b", "c"))
	f.Add(signal(dbus.MakeVariant(map[string]dbus.Variant{"a": dbus.MakeVariant(uint64(1))})))
	f.Fuzz(func(t *testing.T, in []byte) {
		raw, err := readBusMessage(bytes.NewReader(in))
		if err != nil {
			return
		}
		if len(raw) > len(in) || len(raw) < busHeaderSize {
			t.Fatalf("%d bytes out of %d", len(raw), len(in))
		}
		body, _, err := decodeReply(raw, 0)
		var refused *busError
		if err != nil && !errors.Is(err, errBusProtocol) && !errors.As(err, &refused) {
			t.Fatal(err)
		}
		only[dbus.ObjectPath](body)
		if v, err := only[dbus.Variant](body); err == nil {
			only[string]([]any{v.Value()})
			only[[]string]([]any{v.Value()})
		}
	})
}

func FuzzUnitOf(f *testing.F) {
	f.Add("/system.slice/nginx.service")
	f.Add(`/user.slice/user-1000.slice/user@1000.service/app.slice/a\x2db.service`)
	f.Add("/system.slice/__odd.service/")
	f.Fuzz(func(t *testing.T, p string) {
		name, ok := unitOf(cgroups.Ref{Kind: cgroups.Systemd, Path: p})
		if ok != (name != "") || ok && (strings.ContainsAny(name, "/\x00") || !strings.Contains(p, name) || len(name) > 255) {
			t.Fatalf("%q is %q, %v", p, name, ok)
		}
		if ref := cgroups.ParsePath(p); ref.Kind == cgroups.Systemd {
			if name, ok := unitOf(ref); ok && strings.ReplaceAll(name, `\x2d`, "-") != ref.ID {
				t.Fatalf("%q is %q, its ref says %q", p, name, ref.ID)
			}
		}
	})
}

func socketDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(filepath.Clean(dir)) })
	return dir
}
