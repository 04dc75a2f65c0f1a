// SPDX-License-Identifier: Apache-2.0

package cgroups

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// checkParse compares one result of a parser with what is wanted.
func checkParse[T any](t *testing.T, want T, wantErr bool, got T, err error) {
	t.Helper()
	if (err != nil) != wantErr {
		t.Fatalf("got error %v, want one: %v", err, wantErr)
	}
	if wantErr {
		return
	}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(memoryStat{}, kernelMemory{})); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

func TestParseNumbers(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		parse    func([]byte) (Opt[uint64], error)
		want     Opt[uint64]
		wantErr  bool
	}{
		{name: "zero", parse: parseValue, in: "0\n", want: Some[uint64](0)},
		{name: "largest", parse: parseValue, in: "18446744073709551615\n", want: Some[uint64](1<<64 - 1)},
		{name: "one more", parse: parseValue, in: "18446744073709551616\n", wantErr: true},
		{name: "far too long", parse: parseValue, in: strings.Repeat("9", 100), wantErr: true},
		{name: "empty", parse: parseValue, in: "", wantErr: true},
		{name: "newline", parse: parseValue, in: "\n", wantErr: true},
		{name: "negative", parse: parseValue, in: "-1\n", wantErr: true},
		{name: "two", parse: parseValue, in: "1 2\n", wantErr: true},
		{name: "word", parse: parseValue, in: "max\n", wantErr: true},
		{name: "max", parse: parseMax, in: "max\n"},
		{name: "max is a number", parse: parseMax, in: "4096\n", want: Some[uint64](4096)},
		{name: "max is a word", parse: parseMax, in: "maximum\n", wantErr: true},
		{name: "v1 limit", parse: parseLegacyLimit, in: "268435456\n", want: Some[uint64](268435456)},
		{name: "v1 no limit", parse: parseLegacyLimit, in: "9223372036854771712\n"},
		{name: "v1 no limit with pages of 64 KiB", parse: parseLegacyLimit, in: "9223372036854710272\n"},
		{name: "v1 bad limit", parse: parseLegacyLimit, in: "x", wantErr: true},
		{name: "v1 no quota", parse: parseLegacyQuota, in: "-1\n"},
		{name: "v1 quota", parse: parseLegacyQuota, in: "50000\n", want: Some[uint64](50000)},
		{name: "v1 bad quota", parse: parseLegacyQuota, in: "-2\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.in))
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseCPUMax(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Opt[float64]
		wantErr  bool
	}{
		{name: "no limit", in: "max 100000\n"},
		{name: "half a core", in: "50000 100000\n", want: Some(0.5)},
		{name: "four cores", in: "400000 100000", want: Some(4.0)},
		{name: "zero period", in: "50000 0\n", wantErr: true},
		{name: "no period", in: "50000\n", wantErr: true},
		{name: "bad quota", in: "-1 100000\n", wantErr: true},
		{name: "empty", in: "", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseCPUMax([]byte(tt.in))
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseCPUStat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     CPU
		wantErr  bool
	}{
		{
			name: "v2 without the controller", in: "usage_usec 3\nuser_usec 2\nsystem_usec 1\n",
			want: CPU{Usage: Some(3 * time.Microsecond), User: Some(2 * time.Microsecond), System: Some(time.Microsecond)},
		},
		{
			name: "v2", in: "usage_usec 3\nnew_key 7\nnr_periods 5\nnr_throttled 4\nthrottled_usec 9\nnr_bursts 0\n",
			want: CPU{
				Usage: Some(3 * time.Microsecond), Throttled: Some(9 * time.Microsecond),
				Periods: Some[uint64](5), ThrottledPeriods: Some[uint64](4),
			},
		},
		{
			name: "v1", in: "nr_periods 5\nnr_throttled 4\nthrottled_time 9\n",
			want: CPU{Throttled: Some[time.Duration](9), Periods: Some[uint64](5), ThrottledPeriods: Some[uint64](4)},
		},
		{name: "empty", in: ""},
		{name: "key alone", in: "usage_usec\n", wantErr: true},
		{name: "more than time can hold", in: "usage_usec 18446744073709551615\n", wantErr: true},
		{name: "an error is not lost in later keys", in: "usage_usec x\nuser_usec 2\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got CPU
			err := parseCPUStat([]byte(tt.in), &got)
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseCPUAcctStat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     CPU
		wantErr  bool
	}{
		{name: "both", in: "user 101\nsystem 2\n", want: CPU{User: Some(1010 * time.Millisecond), System: Some(20 * time.Millisecond)}},
		{name: "bad", in: "user -1\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got CPU
			err := parseCPUAcctStat([]byte(tt.in), 10*time.Millisecond, &got)
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseMemoryEvents(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     MemoryEvents
		wantErr  bool
	}{
		{
			name: "v2", in: "low 1\nhigh 2\nmax 3\noom 4\noom_kill 5\noom_group_kill 6\n",
			want: MemoryEvents{
				Low: Some[uint64](1), High: Some[uint64](2), Max: Some[uint64](3), OOM: Some[uint64](4), OOMKill: Some[uint64](5),
			},
		},
		{name: "v1", in: "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n", want: MemoryEvents{OOMKill: Some[uint64](5)}},
		{name: "v1 before 4.13", in: "oom_kill_disable 0\nunder_oom 0\n"},
		{name: "bad", in: "oom_kill five\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got MemoryEvents
			err := parseMemoryEvents([]byte(tt.in), &got)
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParsePopulated(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     bool
		wantErr  bool
	}{
		{name: "yes", in: "populated 1\nfrozen 0\n", want: true},
		{name: "no", in: "frozen 1\npopulated 0\n"},
		{name: "empty", in: "", wantErr: true},
		{name: "bad", in: "populated yes\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsePopulated([]byte(tt.in))
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParsePressure(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		want     Stall
		wantErr  bool
	}{
		{
			name: "both", in: "some avg10=0.12 avg60=0.05 avg300=0.01 total=1234567\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7654\n",
			want: Stall{Some: Some(1234567 * time.Microsecond), Full: Some(7654 * time.Microsecond)},
		},
		{name: "cpu before 5.13", in: "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", want: Stall{Some: Some[time.Duration](0)}},
		{name: "empty", in: "", wantErr: true},
		{name: "no total", in: "some avg10=0.00\n", wantErr: true},
		{name: "bad total", in: "some avg10=0.00 total=-1\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsePressure([]byte(tt.in))
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseMemoryStat(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		parse    func([]byte, *memoryStat) error
		usage    Opt[uint64]
		want     Memory
		wantErr  bool
	}{
		{
			name: "v2", parse: parseMemoryStat, usage: Some[uint64](100),
			in: "anon 10\nfile 50\nkernel 9\nkernel_stack 1\nfile_mapped 5\ninactive_file 30\nslab 2\npgfault 20\npgmajfault 4\n",
			want: Memory{
				Usage: Some[uint64](100), WorkingSet: Some[uint64](70), RSS: Some[uint64](15), Cache: Some[uint64](50),
				Kernel: Some[uint64](9), MinorFaults: Some[uint64](16), MajorFaults: Some[uint64](4),
			},
		},
		{
			name: "v2 before 5.18", parse: parseMemoryStat, in: "kernel_stack 1\npagetables 2\npercpu 4\nslab 8\n",
			want: Memory{Kernel: Some[uint64](15)},
		},
		{
			name: "less usage than inactive pages", parse: parseMemoryStat, usage: Some[uint64](1), in: "inactive_file 2\n",
			want: Memory{Usage: Some[uint64](1), WorkingSet: Some[uint64](0)},
		},
		{
			name: "v1", parse: parseLegacyMemoryStat, usage: Some[uint64](100),
			in: "cache 1\nrss 1\ntotal_cache 50\ntotal_rss 10\ntotal_mapped_file 5\ntotal_swap 3\n" +
				"total_pgfault 2\ntotal_pgmajfault 4\ntotal_inactive_file 30\n",
			want: Memory{
				Usage: Some[uint64](100), WorkingSet: Some[uint64](70), RSS: Some[uint64](15), Cache: Some[uint64](50),
				Swap: Some[uint64](3), MinorFaults: Some[uint64](0), MajorFaults: Some[uint64](4),
			},
		},
		{name: "v1 has no totals", parse: parseLegacyMemoryStat, in: "cache 1\nrss 1\n"},
		{name: "bad", parse: parseMemoryStat, in: "anon ten\n", wantErr: true},
		{name: "v1 bad", parse: parseLegacyMemoryStat, in: "total_rss \n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stat memoryStat
			err := tt.parse([]byte(tt.in), &stat)
			got := Memory{Usage: tt.usage}
			stat.fill(&got)
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

func TestParseIO(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		parse    func([]byte, []Device) ([]Device, error)
		want     []Device
		wantErr  bool
	}{
		{
			name: "v2", parse: parseIOStat,
			in:   "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0 cost.vrate=100.00\n8:16 rbytes=0 wbytes=0 rios=0 wios=0\n",
			want: []Device{{Major: 8, ReadBytes: 1, WriteBytes: 2, Reads: 3, Writes: 4}},
		},
		{
			name: "v2 devices without statistics", parse: parseIOStat, in: "7:7 7:6 253:4 rbytes=28672 wbytes=0 rios=22 wios=0\n8:0 ",
			want: []Device{{Major: 253, Minor: 4, ReadBytes: 28672, Reads: 22}},
		},
		{
			name: "v2 unknown device", parse: parseIOStat, in: "(unknown) rbytes=1 wbytes=0 rios=6 wios=0\n8:0 rios=1\n",
			want: []Device{{Major: 8, Reads: 1}},
		},
		{name: "v2 empty", parse: parseIOStat, in: ""},
		{name: "v2 bad number", parse: parseIOStat, in: "8:0 rbytes=x\n", wantErr: true},
		{name: "v2 bad device", parse: parseIOStat, in: "8 rbytes=1\n", wantErr: true},
		{name: "v2 device too large", parse: parseIOStat, in: "4294967296:0 rbytes=1\n", wantErr: true},
		{
			name: "v1 bytes", parse: parseBlkioBytes, in: "8:0 Read 1\n8:0 Write 2\n8:0 Sync 3\n8:0 Total 3\n8:16 Read 0\nTotal 3\n",
			want: []Device{{Major: 8, ReadBytes: 1, WriteBytes: 2}},
		},
		{
			name: "v1 operations", parse: parseBlkioOps, in: "8:0 Read 1\n8:0 Write 2\n(unknown) Read 9\n259:3 Write 4\n",
			want: []Device{{Major: 8, Reads: 1, Writes: 2}, {Major: 259, Minor: 3, Writes: 4}},
		},
		{name: "v1 nothing", parse: parseBlkioOps, in: "Total 0\n"},
		{name: "v1 bad device", parse: parseBlkioOps, in: "sda Read 1\n", wantErr: true},
		{name: "v1 bad number", parse: parseBlkioOps, in: "8:0 Read\n", wantErr: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.parse([]byte(tt.in), nil)
			checkParse(t, tt.want, tt.wantErr, got, err)
		})
	}
}

// FuzzFiles gives the same bytes to the parser of each file. None may panic, and a device is never given twice.
func FuzzFiles(f *testing.F) {
	for _, seed := range []string{
		"", "0\n", "max 100000\n", "-1\n", "usage_usec 3\nnr_periods 5\n", "populated 1\nfrozen 0\n",
		"some avg10=0.12 avg60=0.05 avg300=0.01 total=1234567\n", "anon 10\nfile 50\nkernel 9\n", "total_rss 10\ntotal_cache 1\n",
		"8:0 rbytes=1 wbytes=2 rios=3 wios=4\n", "7:7 7:6 253:4 rbytes=1\n(unknown) rios=1\n", "8:0 Read 1\n8:0 Write 2\nTotal 3\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, g := range groups {
			for _, src := range g {
				var s Stats
				r := reading{s: &s, tick: 10 * time.Millisecond}
				for _, file := range src.files {
					_ = file.parse(&r, b)
				}
				r.finish()
				if src.controller != "blkio" {
					continue
				}
				seen := map[[2]uint32]bool{}
				for _, d := range s.Devices {
					at := [2]uint32{d.Major, d.Minor}
					if seen[at] {
						t.Fatalf("device %v twice", at)
					}
					seen[at] = true
				}
			}
		}
		_ = eventsFile.parse(&reading{}, b)
	})
}
