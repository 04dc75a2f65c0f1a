// SPDX-License-Identifier: Apache-2.0

package inventory

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// Zone is a network and the availability zone, or any other part of the world, that it is in.
type Zone struct {
	Prefix netip.Prefix // masked, IPv4 as such
	Name   string
}

// ZonesOptions of an Inventory.
type ZonesOptions struct {
	Zones []Zone
	// File has more of them, and wins where both know the same network: a line for each, such as 10.1.0.0/16 eu-central-1a. It is
	// read again when it changes. Open fails if it cannot be read; later the zones stay what they were, and Status counts that.
	File string
}

const (
	// lookAtZonesEvery is how often it is looked whether the file has changed.
	lookAtZonesEvery = 10 * time.Second
	maxZonesFile     = 16 << 20
	maxZone          = 128 // bytes of a name
	maxZoneErrors    = 10  // are told
)

// zones knows where addresses are. The zero value knows nothing.
type zones struct {
	options ZonesOptions
	log     *zap.Logger

	mu     sync.Mutex // guards what follows
	names  map[netip.Prefix]string
	bits   [2][]int // lengths of the prefixes of IPv4 and IPv6, the longest first
	file   fileID
	looked time.Time
	failed string // the last error that was told
	errors uint64
}

// openZones reads what there is.
func openZones(o ZonesOptions, log *zap.Logger, now time.Time) (*zones, error) {
	z := &zones{options: o, log: log, looked: now}
	var more []Zone
	if o.File != "" {
		var err error
		if more, z.file, err = readZones(o.File); err != nil {
			return nil, err
		}
	}
	z.set(more)
	return z, nil
}

// set takes the options' zones and those of the file. mu is held, or nobody else knows of z.
func (z *zones) set(more []Zone) {
	z.names = make(map[netip.Prefix]string, len(z.options.Zones)+len(more))
	z.bits = [2][]int{}
	for _, zone := range slices.Concat(z.options.Zones, more) {
		z.names[zone.Prefix] = zone.Name
	}
	for prefix := range z.names {
		family := familyOf(prefix.Addr())
		if !slices.Contains(z.bits[family], prefix.Bits()) {
			z.bits[family] = append(z.bits[family], prefix.Bits())
		}
	}
	for i := range z.bits {
		slices.SortFunc(z.bits[i], func(a, b int) int { return cmp.Compare(b, a) })
	}
}

func familyOf(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

// of returns the zone of the smallest network that has an address, "" if there is none.
func (z *zones) of(a netip.Addr) string {
	a = a.Unmap()
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, bits := range z.bits[familyOf(a)] {
		if p, err := a.Prefix(bits); err == nil {
			if name, ok := z.names[p]; ok {
				return name
			}
		}
	}
	return ""
}

func (z *zones) any() bool {
	z.mu.Lock()
	defer z.mu.Unlock()
	return len(z.names) > 0
}

func (z *zones) errorCount() uint64 {
	z.mu.Lock()
	defer z.mu.Unlock()
	return z.errors
}

// refresh reads the file again if it has changed.
func (z *zones) refresh(now time.Time) {
	if z.options.File == "" || now.Sub(z.looked) < lookAtZonesEvery {
		return
	}
	z.looked = now
	if id, err := statOf(z.options.File); err == nil && id == z.file {
		return
	}
	more, id, err := readZones(z.options.File)
	z.mu.Lock()
	defer z.mu.Unlock()
	if err != nil {
		z.errors++
		if text := err.Error(); text != z.failed {
			z.failed = text
			z.log.Warn("zones stay what they were", zap.Error(err))
		}
		return
	}
	z.file, z.failed = id, ""
	z.set(more)
	z.log.Info("zones were read again", zap.Int("networks", len(z.names)))
}

func readZones(name string) ([]Zone, fileID, error) {
	id, err := statOf(name) // before the content: a change after it is read next time
	if err != nil {
		return nil, fileID{}, fmt.Errorf("file of zones: %w", err)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, fileID{}, fmt.Errorf("file of zones: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxZonesFile+1))
	if err != nil {
		return nil, fileID{}, fmt.Errorf("file of zones: %w", err)
	}
	if len(b) > maxZonesFile {
		return nil, fileID{}, fmt.Errorf("file of zones %s: longer than %d MiB", name, maxZonesFile>>20)
	}
	list, err := parseZones(string(b))
	if err != nil {
		return nil, fileID{}, fmt.Errorf("file of zones %s: %w", name, err)
	}
	return list, id, nil
}

// parseZones reads lines of a network and its zone, which blanks separate. What begins with # is a comment.
func parseZones(text string) ([]Zone, error) {
	var all []Zone
	var errs []error
	number := 0
	for line := range strings.Lines(text) {
		number++
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 2 {
			errs = append(errs, fmt.Errorf("line %d: want a network and a zone", number))
			continue
		}
		zone, err := ParseZone(words[0], words[1])
		if err != nil {
			errs = append(errs, fmt.Errorf("line %d: %w", number, err))
			continue
		}
		all = append(all, zone)
	}
	return all, errors.Join(errs[:min(len(errs), maxZoneErrors)]...)
}

// ParseZone reads a network in CIDR form, and takes a name that may be a label.
func ParseZone(cidr, name string) (Zone, error) {
	prefix, err := netip.ParsePrefix(cidr)
	switch {
	case err != nil:
		return Zone{}, fmt.Errorf("%q is not a network such as 10.1.0.0/16", cidr)
	case prefix.Addr().Is4In6():
		return Zone{}, fmt.Errorf("%q: write IPv4 networks as IPv4", cidr)
	case name == "" || len(name) > maxZone:
		return Zone{}, fmt.Errorf("%s: zone %q has not between 1 and %d bytes", cidr, name, maxZone)
	}
	return Zone{prefix.Masked(), name}, nil
}

// ZoneTraffic is the payload over connections that a container began with peers in a zone.
type ZoneTraffic struct {
	Zone           string
	Sent, Received uint64 // bytes
}

// sumZones adds what is new since the last pass to the totals of zones. edgesMu is held.
func (n *network) sumZones(z *zones) {
	for key, e := range n.edges {
		sent, received := e.sum.sent, e.sum.received
		if isSummedUp(key.actual) || !key.actual.IsValid() || sent == e.zoned.Sent && received == e.zoned.Received {
			continue
		}
		if name := z.of(key.actual.Addr()); name != "" {
			t := n.zones[name]
			if t == nil {
				t = &ZoneTraffic{Zone: name}
				if n.zones == nil {
					n.zones = map[string]*ZoneTraffic{}
				}
				n.zones[name] = t
			}
			t.Sent += sent - min(sent, e.zoned.Sent)
			t.Received += received - min(received, e.zoned.Received)
		}
		e.zoned = ZoneTraffic{Sent: max(sent, e.zoned.Sent), Received: max(received, e.zoned.Received)}
	}
}

func (n *network) giveZones() []ZoneTraffic {
	list := make([]ZoneTraffic, 0, len(n.zones))
	for _, t := range n.zones {
		list = append(list, *t)
	}
	slices.SortFunc(list, func(a, b ZoneTraffic) int { return cmp.Compare(a.Zone, b.Zone) })
	return list
}

func (n *network) absorbZones(o *network) {
	for name, t := range o.zones {
		have := n.zones[name]
		if have == nil {
			if n.zones == nil {
				n.zones = map[string]*ZoneTraffic{}
			}
			n.zones[name] = t
			continue
		}
		have.Sent, have.Received = have.Sent+t.Sent, have.Received+t.Received
	}
}

func statOf(name string) (fileID, error) {
	var st unix.Stat_t
	if err := unix.Stat(name, &st); err != nil {
		return fileID{}, err
	}
	return fileID{st.Dev, st.Ino, st.Mtim.Nano()}, nil
}
