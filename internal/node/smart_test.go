// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// nvmeLog is a SMART / Health Information log page with what the arguments say, as NVM Express lays it out.
func nvmeLog(warning byte, kelvin uint16, used byte, hours, mediaErrors uint64) []byte {
	b := make([]byte, smartSize)
	le := binary.LittleEndian
	b[0] = warning
	le.PutUint16(b[1:], kelvin)
	b[3], b[4], b[5] = 100, 10, used   // available spare, its threshold, percentage used
	le.PutUint64(b[32:], 1<<40)        // data units read
	le.PutUint64(b[112:], 77)          // power cycles
	le.PutUint64(b[128:], hours)       // power on hours
	le.PutUint64(b[144:], 5)           // unsafe shutdowns
	le.PutUint64(b[160:], mediaErrors) // media and data integrity errors
	le.PutUint64(b[176:], 1000)        // entries of the error log
	le.PutUint16(b[200:], kelvin+5)    // temperature sensor 1
	return b
}

func TestParseNVMeSMART(t *testing.T) {
	wide := nvmeLog(0, 300, 0, 1, 0)
	wide[160+8] = 1 // 2^64 media errors
	for _, tt := range []struct {
		name    string
		in      []byte
		want    Health
		wantErr bool
	}{
		{
			name: "healthy", in: nvmeLog(0, 311, 3, 8760, 0),
			want: Health{
				Passed: Some(true), Temperature: Some(38), PercentageUsed: Some(uint8(3)), MediaErrors: Some(uint64(0)),
				PowerOn: Some(8760 * time.Hour),
			},
		},
		{
			name: "worn out, read only", in: nvmeLog(0x0c, 350, 255, 100, 12),
			want: Health{
				Passed: Some(false), Temperature: Some(77), PercentageUsed: Some(uint8(255)), MediaErrors: Some(uint64(12)),
				PowerOn: Some(100 * time.Hour),
			},
		},
		{
			name: "reserved warning, no temperature, absurd age", in: nvmeLog(0x80, 0, 0, math.MaxUint64, 0),
			want: Health{Passed: Some(true), PercentageUsed: Some(uint8(0)), MediaErrors: Some(uint64(0))},
		},
		{
			name: "more than 64 bits", in: wide,
			want: Health{
				Passed: Some(true), Temperature: Some(27), PercentageUsed: Some(uint8(0)), MediaErrors: Some(uint64(math.MaxUint64)),
				PowerOn: Some(time.Hour),
			},
		},
		{name: "truncated", in: nvmeLog(0, 300, 0, 1, 0)[:511], wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseNVMeSMART(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got error %v, want one: %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// ataAttribute is an entry of ATA's SMART data.
type ataAttribute struct {
	id  byte
	raw [6]byte
}

// ataData is ATA's SMART data with a right checksum.
func ataData(attrs ...ataAttribute) []byte {
	b := make([]byte, smartSize)
	b[0] = 0x10 // revision
	for i, a := range attrs {
		at := b[2+i*12:]
		at[0], at[1], at[3], at[4] = a.id, 0x32, 100, 100 // id, flags, value, worst
		copy(at[5:], a.raw[:])
	}
	var sum byte
	for _, c := range b {
		sum += c
	}
	b[511] = -sum
	return b
}

func TestParseATASMART(t *testing.T) {
	bad := ataData(ataAttribute{9, [6]byte{1}})
	bad[511]++
	for _, tt := range []struct {
		name    string
		in      []byte
		want    Health
		wantErr bool
	}{
		{
			name: "disk",
			in: ataData(
				ataAttribute{1, [6]byte{0xff, 0xff}},
				ataAttribute{9, [6]byte{0x10, 0x27, 0, 0x55, 0x66}}, // 10,000 hours, and milliseconds
				ataAttribute{187, [6]byte{2, 0, 0, 0, 1}},
				ataAttribute{190, [6]byte{40, 0, 20, 45}},
				ataAttribute{194, [6]byte{38, 0, 20, 45}},
			),
			want: Health{PowerOn: Some(10000 * time.Hour), Temperature: Some(38), MediaErrors: Some(uint64(1)<<32 | 2)},
		},
		{name: "airflow only", in: ataData(ataAttribute{190, [6]byte{40}}), want: Health{Temperature: Some(40)}},
		{name: "airflow last", in: ataData(ataAttribute{194, [6]byte{38}}, ataAttribute{190, [6]byte{40}}), want: Health{Temperature: Some(38)}},
		{name: "no thermometer", in: ataData(ataAttribute{194, [6]byte{0}}, ataAttribute{9, [6]byte{5}}), want: Health{PowerOn: Some(5 * time.Hour)}},
		{name: "age in seconds", in: ataData(ataAttribute{9, [6]byte{0, 0, 0xff}})},
		{name: "no attributes", in: ataData()},
		{name: "bad checksum", in: bad, wantErr: true},
		{name: "truncated", in: ataData()[:100], wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseATASMART(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got error %v, want one: %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// descriptorSense is sense data with the registers in descriptor format, as libata makes it.
func descriptorSense(r ataRegisters) []byte {
	b := make([]byte, 22)
	b[0], b[1], b[3], b[7] = 0x72, 0x01, 0x1d, 14
	copy(b[8:], []byte{0x09, 12, 0, r.error, 0, r.count, 0, 0, 0, r.lbaMid, 0, r.lbaHigh, 0x40, r.status})
	return b
}

// fixedSense is the same in fixed format.
func fixedSense(r ataRegisters) []byte {
	b := make([]byte, 18)
	b[0], b[2], b[7], b[13] = 0x70, 0x01, 10, 0x1d
	copy(b[3:], []byte{r.error, r.status, 0x40, r.count})
	copy(b[8:], []byte{0, 0, r.lbaMid, r.lbaHigh})
	return b
}

func TestParseATASense(t *testing.T) {
	regs := ataRegisters{status: 0x50, error: 1, count: 0xff, lbaMid: 0x4f, lbaHigh: 0xc2}
	other := append([]byte{0x72, 0x01, 0, 0x1d, 0, 0, 0, 26, 0x00, 10, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0}, descriptorSense(regs)[8:]...)
	for _, tt := range []struct {
		name    string
		in      []byte
		want    ataRegisters
		wantErr bool
	}{
		{name: "descriptors", in: descriptorSense(regs), want: regs},
		{name: "after another descriptor", in: other, want: regs},
		{name: "fixed", in: fixedSense(regs), want: regs},
		{name: "fixed, invalid command", in: []byte{0x70, 0, 5, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0x20, 0}, wantErr: true},
		{name: "no ATA descriptor", in: []byte{0x72, 5, 0x20, 0, 0, 0, 0, 0}, wantErr: true},
		{name: "descriptor longer than the list", in: descriptorSense(regs)[:20], wantErr: true},
		{name: "none", wantErr: true},
		{name: "unknown format", in: make([]byte, 20), wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseATASense(tt.in)
			if (err != nil) != tt.wantErr {
				t.Fatalf("got error %v, want one: %v", err, tt.wantErr)
			}
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestATARegisters(t *testing.T) {
	for count, want := range map[byte]bool{0x00: true, 0x01: true, 0x40: true, 0x41: false, 0x80: false, 0x83: false, 0xff: false} {
		if r := (ataRegisters{count: count}); r.asleep() != want {
			t.Errorf("power mode %#x: asleep %v, want %v", count, r.asleep(), want)
		}
	}
	for _, tt := range []struct {
		mid, high byte
		want      Opt[bool]
	}{{0x4f, 0xc2, Some(true)}, {0xf4, 0x2c, Some(false)}, {0, 0, Opt[bool]{}}} {
		if r := (ataRegisters{lbaMid: tt.mid, lbaHigh: tt.high}); r.passed() != tt.want {
			t.Errorf("%#x %#x: passed %v, want %v", tt.mid, tt.high, r.passed(), tt.want)
		}
	}
}

func FuzzParseNVMeSMART(f *testing.F) {
	f.Add(nvmeLog(0, 311, 3, 8760, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseNVMeSMART(b)
		checkHealth(t, h, err)
	})
}

func FuzzParseATASMART(f *testing.F) {
	f.Add(ataData(ataAttribute{9, [6]byte{1}}, ataAttribute{194, [6]byte{38}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == smartSize { // or hardly any would be looked at
			b[511] = 0
			for _, c := range b[:511] {
				b[511] -= c
			}
		}
		h, err := parseATASMART(b)
		checkHealth(t, h, err)
	})
}

func checkHealth(t *testing.T, h Health, err error) {
	t.Helper()
	switch {
	case err != nil && h != Health{}:
		t.Errorf("%+v with error %v", h, err)
	case h.PowerOn.V < 0 || h.PowerOn.V > 51*365*24*time.Hour:
		t.Errorf("power on for %v", h.PowerOn.V)
	case h.Temperature.V < -273 || h.Temperature.V > 300:
		t.Errorf("%d degrees", h.Temperature.V)
	}
}

func FuzzParseATASense(f *testing.F) {
	regs := ataRegisters{status: 0x50, count: 0xff, lbaMid: 0x4f, lbaHigh: 0xc2}
	f.Add(descriptorSense(regs))
	f.Add(fixedSense(regs))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseATASense(b); err != nil && r != (ataRegisters{}) {
			t.Errorf("%+v with error %v", r, err)
		}
	})
}
