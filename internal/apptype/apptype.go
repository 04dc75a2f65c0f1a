// SPDX-License-Identifier: Apache-2.0

// Package apptype says of which application types a process is: postgres, kafka, java.
//
// The knowledge is in types.txt, one rule a line, and explained at its top. A process is known by the program that it
// runs, never by words that merely occur on its command line: an editor of nginx.conf is not nginx, a shell that starts
// redis-server is not redis. A rule that is not sure is worse than none.
//
// golang, rust and those dotnet programs that need no host cannot be told from a command line; IsGo, IsRust and IsDotnet
// look into the executable. The rest of the package does no I/O.
package apptype

import (
	"slices"
	"strings"
)

// Process is what is known of one process. Everything may be missing.
type Process struct {
	Args []string // as of ParseCmdline; none for kernel threads and zombies
	Exe  string   // what /proc/PID/exe points to, " (deleted)" included; "" when not readable
	Comm string   // /proc/PID/comm; only looked at when both others are missing
}

// Table finds types. It never changes and any number of goroutines may use it.
type Table struct {
	byExe   map[string][]*rule // rules of kind exe
	byName  map[string][]*rule // rules of kind program and runtime
	byStem  map[string][]*rule // those of byName whose name ends in #: a version may follow
	mainsOf map[string]*mains  // by the type of the runtime
}

// mains are the rules for what one runtime runs.
type mains struct {
	byName map[string][]*rule
	globs  []*rule // those with a wildcard, in the order of the file
}

// rule is what one name of one line says.
type rule struct {
	name    string   // without its #; with wildcards in mains.globs
	path    string   // "" or the end that the path of the program must have
	types   []string // none: the process has no type
	first   []string // the first argument that is not an option is one of these
	any     []string // one of these is among the arguments
	unless  []string // none of these is among the arguments
	runtime *runtime // of the rules of kind runtime
}

// runtime says how to find in the arguments what a runtime runs.
type runtime struct {
	kind  string   // the type; rules for what it runs name it
	takes []string // options that the next argument belongs to
	runs  []string // options whose next argument is what is run
	stop  []string // options after which there is nothing to find
}

// program is a name that a process goes by.
type program struct {
	path, name string
}

// Find returns the types of a process, sorted and each once, nil for none. Usually it is one; a runtime and the
// application that it is known to run are two.
//
// What the process calls itself counts more than its executable, as one file may be many programs. Only a runtime is
// found by either.
func (t *Table) Find(p Process) []string {
	exe := programOf(strings.TrimSuffix(p.Exe, " (deleted)"))
	if r := match(t.byExe[exe.name], exe, exe, p.Args); r != nil {
		return sorted(r.types)
	}
	args := p.Args
	if len(args) == 1 && strings.IndexByte(args[0], ' ') >= 0 {
		args = strings.Fields(args[0])
	}
	var self program
	switch {
	case len(args) > 0 && args[0] != "":
		self = calledOf(args[0])
	case p.Exe == "":
		self = program{name: p.Comm}
	}
	own := t.lookUp(self, exe, args)
	var file *rule
	if exe.name != "" && exe.name != self.name {
		file = t.lookUp(exe, exe, args)
	}
	switch {
	case own == nil:
		own, file = file, nil
	case len(own.types) == 0 || file != nil && file.runtime == nil:
		file = nil
	}
	if own == nil {
		return nil
	}
	types := own.types
	if file != nil {
		types = append(slices.Clip(types), file.types...)
	}
	for _, r := range []*rule{own, file} {
		if r == nil || r.runtime == nil {
			continue
		}
		if m := t.mainOf(r.runtime, args); m != nil {
			types = append(slices.Clip(types), m.types...)
		}
	}
	return sorted(types)
}

func sorted(types []string) []string {
	if len(types) == 0 {
		return nil
	}
	types = slices.Clone(types)
	slices.Sort(types)
	return slices.Compact(types)
}

func programOf(path string) program {
	return program{path: path, name: path[strings.LastIndexByte(path, '/')+1:]}
}

// calledOf finds the program in the first argument, which may be a path, a login shell's "-sh" or the title of a process
// that has overwritten its arguments: "postgres: 15/main: checkpointer ".
func calledOf(arg string) program {
	if word, _, isTitle := strings.Cut(arg, " "); isTitle && strings.HasSuffix(word, ":") {
		arg = word
	}
	p := programOf(strings.TrimPrefix(arg, "-"))
	p.name = strings.TrimSuffix(p.name, ":")
	return p
}

// lookUp finds the first rule for a program: by its name, by the name without the tails that builds and packages add,
// and, where the rule allows it, without a version.
func (t *Table) lookUp(p, exe program, args []string) *rule {
	if p.name == "" {
		return nil
	}
	if rules, ok := t.byName[p.name]; ok {
		return match(rules, p, exe, args)
	}
	name := withoutTails(p.name)
	if rules, ok := t.byName[name]; ok {
		return match(rules, p, exe, args)
	}
	stem := strings.TrimRight(name, "0123456789.")
	if stem == name {
		return nil
	}
	return match(t.byStem[strings.TrimSuffix(stem, "-")], p, exe, args)
}

// tails are what is put behind the name of a program to tell builds of it apart.
var tails = []string{
	"-prod", "-debug", "-dbg", "-pure", "-linux", "_linux", ".linux", "-amd64", "_amd64", "-arm64", "_arm64",
	"-x86_64", "-aarch64",
}

// withoutTails also knows ".nginx-wrapped", the way of NixOS.
func withoutTails(name string) string {
	if inner, ok := strings.CutSuffix(name, "-wrapped"); ok {
		name = strings.TrimPrefix(inner, ".")
	}
	for again := true; again; {
		again = false
		for _, tail := range tails {
			if short, ok := strings.CutSuffix(name, tail); ok {
				name, again = short, true
			}
		}
	}
	return name
}

// match returns the first rule whose conditions hold, nil for none.
func match(rules []*rule, p, exe program, args []string) *rule {
	for _, r := range rules {
		if r.path != "" && !endsInPath(p.path, r.path) && !endsInPath(exe.path, r.path) {
			continue
		}
		if r.holds(args) {
			return r
		}
	}
	return nil
}

func endsInPath(path, end string) bool {
	head, ok := strings.CutSuffix(path, end)
	return ok && (head == "" || strings.HasSuffix(head, "/"))
}

func (r *rule) holds(args []string) bool {
	if len(args) > 0 {
		args = args[1:]
	}
	if r.first != nil && !slices.Contains(r.first, firstOperand(args)) {
		return false
	}
	if r.any != nil && !slices.ContainsFunc(r.any, func(word string) bool { return among(args, word) }) {
		return false
	}
	return !slices.ContainsFunc(r.unless, func(word string) bool { return among(args, word) })
}

func firstOperand(args []string) string {
	for _, arg := range args {
		if !strings.HasPrefix(arg, "-") {
			return arg
		}
	}
	return ""
}

// among reports whether word is one of args; one with a space in it stands for two neighbours.
func among(args []string, word string) bool {
	head, next, two := strings.Cut(word, " ")
	for i, arg := range args {
		if two && (i+1 == len(args) || !glob(next, args[i+1])) {
			continue
		}
		if glob(head, arg) {
			return true
		}
	}
	return false
}

// glob reports whether s is what pattern says, where * stands for anything at the beginning, the end or both.
func glob(pattern, s string) bool {
	tail, anyHead := strings.CutPrefix(pattern, "*")
	head, anyTail := strings.CutSuffix(tail, "*")
	switch {
	case anyHead && anyTail:
		return strings.Contains(s, head)
	case anyHead:
		return strings.HasSuffix(s, tail)
	case anyTail:
		return strings.HasPrefix(s, head)
	}
	return s == pattern
}

// mainOf finds the rule for what the runtime runs.
func (t *Table) mainOf(rt *runtime, args []string) *rule {
	m := t.mainsOf[rt.kind]
	if m == nil {
		return nil
	}
	main := rt.find(args)
	if main == "" {
		return nil
	}
	p := programOf(main)
	if r := match(m.byName[p.name], p, program{}, args); r != nil {
		return r
	}
	for _, r := range m.globs {
		if glob(r.name, main) && r.holds(args) {
			return r
		}
	}
	return nil
}

// find returns the script, class, archive or module that is run, "" when the arguments do not tell.
func (rt *runtime) find(args []string) string {
	for i := 1; i < len(args); i++ {
		arg := args[i]
		if arg == "" {
			continue
		}
		if arg[0] != '-' {
			return arg
		}
		if option, value, ok := strings.Cut(arg, "="); ok && slices.Contains(rt.runs, option) {
			return value
		}
		switch {
		case slices.Contains(rt.stop, arg):
			return ""
		case slices.Contains(rt.runs, arg):
			if i+1 < len(args) {
				return args[i+1]
			}
		case slices.Contains(rt.takes, arg):
			i++
		}
	}
	return ""
}
