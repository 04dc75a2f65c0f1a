// SPDX-License-Identifier: Apache-2.0

package logpatterns

import (
	"strings"
	"testing"
)

// frameKinds are one line of each way that Frame can take.
var frameKinds = []struct{ name, line string }{
	{"no header", "Connection from 10.20.30.40 port 5123 was accepted by worker 12 of 3040"},
	{"time", "2026-11-21 13:04:05,123 Connection from 10.20.30.40 port 5123 accepted it"},
	{"time level", "2026-11-21 13:04:05,123 INFO Connection from 10.20.30.40 port 5123 is up"},
	{"logger", "2026-11-21 13:04:05,123 INFO [main] org.example.app.Net: port 5123 is up"},
	{"syslog", "Nov 21 13:04:05 host1 sshd[12345]: Accepted a key for bob from 10.0.0.12"},
	{"glog", "I1121 13:04:05.123456   12 reflector.go:243] Listing and watching *v1.Pod"},
	{"access log", `10.1.2.3 - - [21/Nov/2026:13:04:05 +0000] "GET /api/v1/users/12 HTTP/1.1" 200 512 "-" "curl/8.0"`},
	{"JSON", `{"level":"info","ts":1763730245.123,"logger":"ctl","msg":"Connection accepted","port":5123}`},
	{"JSON escaped", `{"level":"info","ts":1763730245.123,"logger":"ctl","msg":"Connection \"x\" accepted","port":5123}`},
	{"logfmt", `ts=2026-11-21T13:04:05.123Z caller=main.go:12 level=info msg="Connection accepted" port=5123`},
	{"coloured", "\x1b[90m1:04PM\x1b[0m \x1b[32mINF\x1b[0m Connection from 10.20.30.40 port 5123 is up"},
	{"docker JSON", `{"log":"2026-11-21 13:04:05 ERROR no \"way\"\n","stream":"stdout","time":"2026-11-21T13:04:05.123456789Z"}`},
}

func BenchmarkFrame(b *testing.B) {
	for _, kind := range frameKinds {
		b.Run(strings.ReplaceAll(kind.name, " ", "_"), func(b *testing.B) {
			var f Framer
			line := []byte(kind.line)
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				f.Frame(line)
			}
		})
	}
}

func TestFrameDoesNotAllocate(t *testing.T) {
	for _, kind := range frameKinds {
		t.Run(kind.name, func(t *testing.T) {
			var f Framer
			line := []byte(kind.line)
			f.Frame(line)
			if n := testing.AllocsPerRun(100, func() { f.Frame(line) }); n != 0 {
				t.Errorf("%v allocations, want 0", n)
			}
		})
	}
}
