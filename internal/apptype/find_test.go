// SPDX-License-Identifier: Apache-2.0

package apptype

import (
	"bufio"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func defaultTable(tb testing.TB) *Table {
	tb.Helper()
	t, err := Default()
	if err != nil {
		tb.Fatal(err)
	}
	return t
}

// sample is a line of testdata/cmdlines.txt, whose top describes it.
type sample struct {
	line string
	want []string
	p    Process
}

func samples(tb testing.TB) []sample {
	tb.Helper()
	f, err := os.Open("testdata/cmdlines.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	var all []sample
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		columns := strings.SplitN(line, "|", 3)
		if len(columns) != 3 {
			tb.Fatalf("%q: want three columns", line)
		}
		for i := range columns {
			columns[i] = strings.TrimSpace(columns[i])
		}
		s := sample{line: line, p: Process{Exe: columns[1]}}
		if columns[0] != "-" {
			s.want = strings.Fields(columns[0])
		}
		if title, ok := strings.CutPrefix(columns[2], "TITLE "); ok {
			s.p.Args = ParseCmdline([]byte(title + " \x00\x00\x00"))
		} else {
			cmdline := strings.ReplaceAll(columns[2], " ", "\x00")
			s.p.Args = ParseCmdline([]byte(strings.ReplaceAll(cmdline, "~", " ") + "\x00"))
		}
		all = append(all, s)
	}
	if err := lines.Err(); err != nil {
		tb.Fatal(err)
	}
	return all
}

func TestFindKnowsRealCommandLines(t *testing.T) {
	table := defaultTable(t)
	all := samples(t)
	if len(all) < 200 {
		t.Errorf("%d samples", len(all))
	}
	for _, s := range all {
		if diff := cmp.Diff(s.want, table.Find(s.p)); diff != "" {
			t.Errorf("%s\n%s", s.line, diff)
		}
	}
}

func TestFind(t *testing.T) {
	table := defaultTable(t)
	for _, tt := range []struct {
		name string
		in   Process
		want []string
	}{
		{name: "nothing known"},
		{name: "kernel thread", in: Process{Comm: "kworker/0:1"}},
		{name: "zombie", in: Process{Comm: "redis-server"}, want: []string{"redis"}},
		{name: "the command name counts only alone", in: Process{Args: []string{"/app"}, Comm: "redis-server"}},
		{name: "no arguments", in: Process{Exe: "/usr/sbin/nginx"}, want: []string{"nginx"}},
		{name: "empty first argument", in: Process{Args: []string{"", "-h"}, Exe: "/usr/bin/python3.11"}, want: []string{"python"}},
		{name: "replaced executable", in: Process{Args: []string{"app"}, Exe: "/usr/bin/node (deleted)"}, want: []string{"nodejs"}},
		{
			name: "a title in one argument",
			in:   Process{Args: []string{"postgres: 15/main: app app 10.0.0.7(42112) idle in transaction"}},
			want: []string{"postgres"},
		},
		{
			name: "a title and what it has not overwritten",
			in:   Process{Args: []string{"gunicorn: worker [shop/wsgi]", "", "", "", "application"}, Exe: "/usr/bin/python3.9"},
			want: []string{"python"},
		},
		{
			name: "blanks in the path",
			in:   Process{Args: []string{"/opt/My Server/jre/bin/java", "-jar", "/opt/My Server/jenkins.war"}},
			want: []string{"java", "jenkins"},
		},
		{
			name: "a long command line",
			in: Process{Args: append([]string{"java", "-cp", strings.Repeat("/opt/kafka/libs/x.jar:", 20_000)},
				append(make([]string, 2000), "kafka.Kafka", "server.properties")...)},
			want: []string{"java", "kafka"},
		},
		{
			name: "cut off before the class",
			in:   Process{Args: []string{"java", "-Xmx1g", "-cp", "/opt/kafka/libs/kaf"}},
			want: []string{"java"},
		},
		{name: "login shell", in: Process{Args: []string{"-bash"}, Exe: "/usr/bin/bash"}},
		{name: "shell running a server", in: Process{Args: []string{"sh", "-c", "exec redis-server /etc/redis.conf"}, Exe: "/usr/bin/dash"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, table.Find(tt.in)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFindGivesAwayNothingOfTheTable(t *testing.T) {
	table := defaultTable(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				got := table.Find(Process{Args: []string{"java", "kafka.Kafka"}})
				if diff := cmp.Diff([]string{"java", "kafka"}, got); diff != "" {
					t.Error(diff)
				}
				got[0], got[1] = "x", "x"
				got = table.Find(Process{Args: []string{"mariadbd"}})
				if diff := cmp.Diff([]string{"mariadb", "mysql"}, got); diff != "" {
					t.Error(diff)
				}
				got[0] = "x"
			}
		})
	}
	wg.Wait()
}

func FuzzFind(f *testing.F) {
	table := defaultTable(f)
	for _, s := range samples(f) {
		f.Add(strings.Join(s.p.Args, "\x00"), s.p.Exe, "")
	}
	f.Fuzz(func(t *testing.T, cmdline, exe, comm string) {
		p := Process{Args: strings.Split(cmdline, "\x00"), Exe: exe, Comm: comm}
		got := table.Find(p)
		for i, name := range got {
			if !typeName.MatchString(name) {
				t.Errorf("type %q", name)
			}
			if i > 0 && got[i-1] >= name {
				t.Errorf("%q is not sorted or has one twice", got)
			}
		}
		if got != nil && len(got) == 0 {
			t.Error("empty, not nil")
		}
	})
}

func BenchmarkFind(b *testing.B) {
	table := defaultTable(b)
	kafka := []string{"java", "-Xmx1G", "-Xms1G", "-server", "-XX:+UseG1GC"}
	for range 60 {
		kafka = append(kafka, "-Dcom.sun.management.jmxremote.authenticate=false")
	}
	kafka = append(kafka, "-cp", strings.Repeat("/opt/kafka/libs/x.jar:", 100), "kafka.Kafka", "/etc/kafka/server.properties")
	for _, bb := range []struct {
		name string
		p    Process
	}{
		{"postgres", Process{Args: []string{"postgres:", "checkpointer"}, Exe: "/usr/lib/postgresql/15/bin/postgres"}},
		{"title", Process{Args: []string{"nginx: worker process"}, Exe: "/usr/sbin/nginx"}},
		{"python", Process{Args: []string{"/usr/bin/python3", "/srv/app/manage.py", "runserver"}, Exe: "/usr/bin/python3.11"}},
		{"kafka", Process{Args: kafka, Exe: "/usr/lib/jvm/java-17-openjdk-amd64/bin/java"}},
		{"nothing", Process{Args: []string{"/usr/bin/tail", "-f", "/var/log/syslog"}, Exe: "/usr/bin/tail"}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.Find(bb.p)
			}
		})
	}
}

func BenchmarkDefault(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		defaultTable(b)
	}
}
