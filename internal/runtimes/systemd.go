// SPDX-License-Identifier: Apache-2.0

package runtimes

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/ebpfcontainer/ebpfcontainer/internal/cgroups"
)

// systemdIdle is how long a connection to systemd is kept that nobody uses. systemd sends all its signals to whoever is
// connected to its private socket, whether he has asked for them or not.
const systemdIdle = 5 * time.Second

// maxTriggers is how many of the units that trigger a service are told.
const maxTriggers = 32

// errSystemdClosed reports the use of a systemd after Close.
var errSystemdClosed = errors.New("closed")

// systemd asks the service manager of the host over D-Bus. Its calls come one after the other, on a connection that is
// made when it is needed.
//
// It only reads, and only of units that are loaded: a question about the object of a unit that is not would load it
// (manager_load_unit_from_dbus_path in src/core of systemd). That is why GetUnit is asked first.
type systemd struct {
	socket string
	direct bool // systemd itself listens, and not a bus
	ctx    context.Context
	close  context.CancelFunc

	turn chan *busConn // holds the connection, or nil, while nobody uses it
	idle *time.Timer   // owned by who has taken the connection out of turn

	lostOnce sync.Once
	lost     chan struct{} // closed when systemd could not be reached, or did not answer
	lostErr  error         // why; set before
}

// newSystemd connects to the systemd that listens on its private socket, such as /run/systemd/private, or on the bus of any
// other socket. It returns within Deadline.
func newSystemd(ctx context.Context, socket string) (Runtime, error) {
	s := &systemd{socket: socket, direct: path.Base(socket) == "private", turn: make(chan *busConn, 1), lost: make(chan struct{})}
	s.ctx, s.close = context.WithCancel(context.Background())
	ctx, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	conn, err := s.dial(ctx)
	if err == nil {
		err = conn.do(ctx, func() error {
			_, err := property[string](conn, managerPath, "org.freedesktop.systemd1.Manager", "Version")
			return err
		})
	}
	if err != nil {
		if conn != nil {
			conn.Close()
		}
		s.close()
		return nil, fmt.Errorf("systemd at %s: %w", socket, err)
	}
	s.idle = time.AfterFunc(systemdIdle, s.closeIdle)
	s.turn <- conn
	return s, nil
}

func (s *systemd) dial(ctx context.Context) (*busConn, error) {
	return dialBus(ctx, s.socket, s.direct)
}

// closeIdle closes the connection if nobody uses it.
func (s *systemd) closeIdle() {
	select {
	case conn := <-s.turn:
		if conn != nil {
			conn.Close()
		}
		s.turn <- nil
	default:
	}
}

// Inspect tells the type of a unit and what triggers it. ErrNotFound: the unit is not loaded, or is one of a user's manager.
func (s *systemd) Inspect(ctx context.Context, ref cgroups.Ref) (Info, error) {
	name, ok := unitOf(ref)
	if !ok {
		return Info{}, ErrNotFound
	}
	bounded, cancel := context.WithTimeout(ctx, Deadline)
	defer cancel()
	stop := context.AfterFunc(s.ctx, cancel)
	defer stop()

	unit, err := s.ask(bounded, name)
	var refused *busError
	switch {
	case err == nil:
		return Info{ID: ref.ID, Name: name, Unit: unit}, nil
	case errors.Is(err, ErrNotFound):
		return Info{}, ErrNotFound
	case s.ctx.Err() != nil:
		err = errSystemdClosed
	case ctx.Err() == nil && !errors.As(err, &refused):
		s.lostOnce.Do(func() {
			s.lostErr = err
			close(s.lost)
		})
	}
	return Info{}, fmt.Errorf("systemd at %s: unit %s: %w", s.socket, name, err)
}

// ask asks on the connection that there is, or on a new one where that has come to its end in the meantime.
func (s *systemd) ask(ctx context.Context, name string) (unit Unit, err error) {
	var conn *busConn
	select {
	case conn = <-s.turn:
	case <-ctx.Done():
		return Unit{}, ctx.Err()
	}
	defer func() {
		s.idle.Reset(systemdIdle)
		s.turn <- conn
	}()
	s.idle.Stop()
	if err := ctx.Err(); err != nil {
		return Unit{}, err
	}
	for old := conn != nil; ; old = false {
		if conn == nil {
			if conn, err = s.dial(ctx); err != nil {
				return Unit{}, err
			}
		}
		unit, err = conn.unit(ctx, name)
		var refused *busError
		if err == nil || errors.As(err, &refused) {
			return unit, asNotFound(err)
		}
		conn.Close() // who knows what comes next on it
		conn = nil
		if !old || ctx.Err() != nil {
			return Unit{}, err
		}
	}
}

// Follow returns when ctx ends, after Close, or when Inspect could not reach systemd or had no answer. Units do not change
// their names.
func (s *systemd) Follow(ctx context.Context, _ func(id string)) error {
	select {
	case <-ctx.Done():
		return nil
	case <-s.ctx.Done():
		return nil
	case <-s.lost:
		return s.lostErr
	}
}

// Close ends what is going on and closes the connection.
func (s *systemd) Close() error {
	s.close()
	conn := <-s.turn
	s.idle.Stop()
	if conn != nil {
		conn.Close()
	}
	s.turn <- nil
	return nil
}

const managerPath dbus.ObjectPath = "/org/freedesktop/systemd1"

// unit asks for what Unit has.
func (c *busConn) unit(ctx context.Context, name string) (unit Unit, err error) {
	err = c.do(ctx, func() error {
		body, err := c.call(managerPath, "org.freedesktop.systemd1.Manager", "GetUnit", name)
		if err != nil {
			return err
		}
		object, err := only[dbus.ObjectPath](body)
		if err != nil {
			return fmt.Errorf("GetUnit: %w", err)
		}
		if unit.Type, err = property[string](c, object, "org.freedesktop.systemd1.Service", "Type"); err != nil {
			return err
		}
		unit.TriggeredBy, err = property[[]string](c, object, "org.freedesktop.systemd1.Unit", "TriggeredBy")
		return err
	})
	if err != nil {
		return Unit{}, err
	}
	if len(unit.TriggeredBy) > maxTriggers {
		unit.TriggeredBy = unit.TriggeredBy[:maxTriggers]
	}
	if len(unit.TriggeredBy) == 0 {
		unit.TriggeredBy = nil
	}
	return unit, nil
}

// property returns the value of a property of an object.
func property[T any](c *busConn, object dbus.ObjectPath, iface, name string) (value T, err error) {
	body, err := c.call(object, "org.freedesktop.DBus.Properties", "Get", iface, name)
	if err != nil {
		return value, fmt.Errorf("%s: %w", name, err)
	}
	v, err := only[dbus.Variant](body)
	if err == nil {
		value, err = only[T]([]any{v.Value()})
	}
	if err != nil {
		return value, fmt.Errorf("%s: %w", name, err)
	}
	return value, nil
}

// only returns the one value of an answer. dbus.Store would make text of a number.
func only[T any](body []any) (value T, err error) {
	if len(body) == 1 {
		if value, ok := body[0].(T); ok {
			return value, nil
		}
	}
	return value, fmt.Errorf("answer is not one %T: %w", value, errBusProtocol)
}

// asNotFound makes ErrNotFound of the answers that tell that there is no such unit, or no longer.
func asNotFound(err error) error {
	var refused *busError
	if errors.As(err, &refused) {
		switch refused.name {
		case "org.freedesktop.systemd1.NoSuchUnit", "org.freedesktop.DBus.Error.UnknownObject",
			"org.freedesktop.DBus.Error.InvalidArgs": // no name of a unit
			return ErrNotFound
		}
	}
	return err
}

// unitOf returns the name by which the system's systemd knows the unit of ref. There is none for what is no unit, for the
// units of a user's manager, and where the name is none that a unit can have.
func unitOf(ref cgroups.Ref) (string, bool) {
	if ref.Kind != cgroups.Systemd {
		return "", false
	}
	dir, name := path.Split(strings.TrimRight(ref.Path, "/"))
	for c := range strings.SplitSeq(dir, "/") {
		if strings.HasSuffix(c, ".service") {
			return "", false
		}
	}
	name = strings.TrimPrefix(name, "_") // cg_escape in src/basic/cgroup-util.c of systemd
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + `:-_.\@`
	if !strings.HasSuffix(name, ".service") || len(name) > 255 || strings.Trim(name, letters) != "" {
		return "", false
	}
	return name, true
}
