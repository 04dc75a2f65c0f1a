// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"bytes"
	"fmt"
	"math"
)

// unknownDevice is what the kernel writes for a device that has no name.
const unknownDevice = "(unknown)"

// parseIOStat reads io.stat, lines of "MAJOR:MINOR rbytes=N wbytes=N rios=N wios=N ...", and appends to devices what has
// any I/O.
//
// Some kernels (seen on 5.15) leave devices without statistics at the head of the line of the next one, "7:0 7:1 8:0
// rbytes=...", or at the end of the file: the last number counts. A device that is "(unknown)" (ZFS, hidden paths of NVMe)
// is skipped.
func parseIOStat(b []byte, devices []Device) ([]Device, error) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		var d Device
		known := false
		for len(l) > 0 {
			var w []byte
			w, l = word(l)
			if len(w) == 0 {
				break
			}
			i := bytes.IndexByte(w, '=')
			if i < 0 {
				if known = string(w) != unknownDevice; !known {
					continue
				}
				var err error
				if d.Major, d.Minor, err = parseDevice(w); err != nil {
					return devices, err
				}
				continue
			}
			var to *uint64
			switch string(w[:i]) {
			case "rbytes":
				to = &d.ReadBytes
			case "wbytes":
				to = &d.WriteBytes
			case "rios":
				to = &d.Reads
			case "wios":
				to = &d.Writes
			default: // discards, and what the cost and latency controllers add
				continue
			}
			v, err := parseUint(w[i+1:])
			if err != nil {
				return devices, fmt.Errorf("device %d:%d %.40q: %w", d.Major, d.Minor, w, err)
			}
			*to = v
		}
		if known && d.ReadBytes|d.WriteBytes|d.Reads|d.Writes != 0 {
			devices = append(devices, d)
		}
	}
	return devices, nil
}

// parseBlkioBytes reads blkio.throttle.io_service_bytes or one of its kind, lines of "MAJOR:MINOR Read N" and so on.
func parseBlkioBytes(b []byte, devices []Device) ([]Device, error) {
	return parseBlkio(b, devices, func(d *Device) (read, write *uint64) { return &d.ReadBytes, &d.WriteBytes })
}

// parseBlkioOps reads blkio.throttle.io_serviced or one of its kind.
func parseBlkioOps(b []byte, devices []Device) ([]Device, error) {
	return parseBlkio(b, devices, func(d *Device) (read, write *uint64) { return &d.Reads, &d.Writes })
}

func parseBlkio(b []byte, devices []Device, counters func(*Device) (read, write *uint64)) ([]Device, error) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		dev, l := word(l)
		op, l := word(l)
		val, _ := word(l)
		if string(op) != "Read" && string(op) != "Write" {
			continue // Sync, Async, Discard, Total: other sums of the same; "Total N" has no device
		}
		if string(dev) == unknownDevice {
			continue
		}
		major, minor, err := parseDevice(dev)
		if err != nil {
			return devices, err
		}
		v, err := parseUint(val)
		if err != nil {
			return devices, fmt.Errorf("device %d:%d %s %.40q: %w", major, minor, op, val, err)
		}
		if v == 0 {
			continue
		}
		var d *Device
		d, devices = device(devices, major, minor)
		read, write := counters(d)
		if string(op) == "Read" {
			*read = v
		} else {
			*write = v
		}
	}
	return devices, nil
}

// device finds the device in devices or appends it. Hosts have few.
func device(devices []Device, major, minor uint32) (*Device, []Device) {
	for i := range devices {
		if devices[i].Major == major && devices[i].Minor == minor {
			return &devices[i], devices
		}
	}
	devices = append(devices, Device{Major: major, Minor: minor})
	return &devices[len(devices)-1], devices
}

// parseDevice reads MAJOR:MINOR.
func parseDevice(b []byte) (major, minor uint32, err error) {
	a, c, ok := bytes.Cut(b, []byte(":"))
	if !ok {
		return 0, 0, fmt.Errorf("device %.40q: no colon", b)
	}
	ma, err := parseUint(a)
	if err != nil {
		return 0, 0, fmt.Errorf("device %.40q: %w", b, err)
	}
	mi, err := parseUint(c)
	if err != nil {
		return 0, 0, fmt.Errorf("device %.40q: %w", b, err)
	}
	if ma > math.MaxUint32 || mi > math.MaxUint32 {
		return 0, 0, fmt.Errorf("device %.40q: %w", b, errTooLarge)
	}
	return uint32(ma), uint32(mi), nil
}
