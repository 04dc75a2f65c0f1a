// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"
)

const (
	maxNameWidth  = 60
	noValue       = "-"
	kibi          = 1024
	mebi          = kibi * kibi
	gibi          = kibi * mebi
	columnHeading = "CONTAINER\tTYPE\tCORES\tCPU TIME\tCPU DELAY\tWORKING SET\tRSS\tRESTARTS\tEXITS\tCONNECTS\tFAILED\tACCEPTED\tACTIVE\tLOGGED\tMOST CONNECTS TO"
)

// row is a container with the cores it used between two samples, nil when there is only one.
type row struct {
	*container
	cores *float64
}

// printTable writes the containers of now, the busiest first. It is one Write, so that a log on the same terminal
// does not cut it in two.
func printTable(out io.Writer, before, now sample, limit int) error {
	sorted := rows(before, now)
	left := max(0, len(sorted)-limit)

	var buf bytes.Buffer
	fmt.Fprintf(&buf, "\n%s  %d containers and services\n", now.at.Format(time.TimeOnly), len(sorted))
	if len(sorted) == 0 {
		buf.WriteString("nothing on this machine runs in a container or as a system service, as far as its cgroups tell\n\n")
		_, err := out.Write(buf.Bytes())
		return err
	}
	tw := tabwriter.NewWriter(&buf, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, columnHeading)
	for _, r := range sorted[:len(sorted)-left] {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", shorten(r.name),
			cmp.Or(strings.Join(slices.Sorted(maps.Keys(r.types)), " "), noValue),
			number(r.cores, "%.3f"), number(r.cpuSeconds, "%.1f s"), number(r.cpuDelay, "%.1f s"),
			size(r.workingSet), size(r.rss), number(r.restarts, "%.0f"), withReason(r.exits, r.exitsBy),
			number(r.connects, "%.0f"), withReason(r.failed, r.failedBy), number(r.accepted, "%.0f"), number(r.active, "%.0f"),
			withErrors(r.logged, r.loggedErrors), cmp.Or(top(r.connectedTo), noValue))
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	if left > 0 {
		fmt.Fprintf(&buf, "and %d more\n", left)
	}
	buf.WriteByte('\n')
	_, err := out.Write(buf.Bytes())
	return err
}

// rows sorts by the cores used since before, then by the CPU time used in all.
func rows(before, now sample) []row {
	var all []row
	for id, c := range now.containers {
		r := row{container: c}
		if was := before.containers[id]; was != nil && was.cpuSeconds != nil && c.cpuSeconds != nil {
			// Less than before: another container with the same name.
			if used := *c.cpuSeconds - *was.cpuSeconds; used >= 0 {
				cores := used / now.at.Sub(before.at).Seconds()
				r.cores = &cores
			}
		}
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b row) int {
		return cmp.Or(
			cmp.Compare(orZero(b.cores), orZero(a.cores)),
			cmp.Compare(orZero(b.cpuSeconds), orZero(a.cpuSeconds)),
			cmp.Compare(a.name, b.name),
		)
	})
	return all
}

// withReason gives a number and the most frequent reason, with its own number if there are others.
func withReason(n *float64, by map[string]float64) string {
	cell, reason := number(n, "%.0f"), top(by)
	if n == nil || *n == 0 || reason == "" {
		return cell
	}
	word := strings.ReplaceAll(reason, "_", " ")
	if by[reason] >= *n {
		return cell + " " + word
	}
	return fmt.Sprintf("%s (%.0f %s)", cell, by[reason], word)
}

// withErrors gives a number of messages, and how many of them are errors.
func withErrors(n *float64, errors float64) string {
	if errors == 0 {
		return number(n, "%.0f")
	}
	return fmt.Sprintf("%s (%.0f errors)", number(n, "%.0f"), errors)
}

// top is the key with the highest count, the first by name among equals, "" if none is above zero.
func top(counts map[string]float64) string {
	highest := ""
	for _, key := range slices.Sorted(maps.Keys(counts)) {
		if n := counts[key]; n > 0 && (highest == "" || n > counts[highest]) {
			highest = key
		}
	}
	return highest
}

// shorten keeps the end of a long name, where names differ.
func shorten(name string) string {
	if n := utf8.RuneCountInString(name); n > maxNameWidth {
		return "..." + string([]rune(name)[n-maxNameWidth+3:])
	}
	return name
}

func number(v *float64, format string) string {
	if v == nil {
		return noValue
	}
	return fmt.Sprintf(format, *v)
}

func size(v *float64) string {
	switch {
	case v == nil:
		return noValue
	case *v >= gibi:
		return fmt.Sprintf("%.1f GiB", *v/gibi)
	case *v >= mebi:
		return fmt.Sprintf("%.1f MiB", *v/mebi)
	default:
		return fmt.Sprintf("%.0f KiB", *v/kibi)
	}
}

func orZero(v *float64) float64 {
	if v == nil {
		return 0
	}
	return *v
}
