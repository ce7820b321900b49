// Modprobe-stand-in takes modprobe's place in a fake host root, where the real one would act on the machine's own kernel.
//
// In:  modprobe -a -- NAME...; /stand-in/loadable: one module a line with its dependencies behind it; /stand-in/refused: one
// module a line with the kernel's words behind it; /stand-in/busy: it takes a minute; /stand-in/daemon: it leaves one behind that
// holds its output for a minute; /stand-in/noise: how many bytes it prints before anything else.
// Out: /proc/modules, with each loaded module and its dependencies added; /stand-in/calls, with the names of each call.
// Exit: 0; 1 if one of the names could not be loaded. Its messages are kmod's own (tools/modprobe.c), which goes on after a
// name that fails.
package main

import (
	"fmt"
	"log"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

func main() {
	if os.Args[1] == "daemon" {
		time.Sleep(time.Minute)
		return
	}
	names := os.Args[slices.Index(os.Args, "--")+1:]
	write("/stand-in/calls", strings.Join(names, " ")+"\n")
	if _, err := os.Stat("/stand-in/busy"); err == nil {
		time.Sleep(time.Minute)
	}
	if _, err := os.Stat("/stand-in/daemon"); err == nil {
		daemon := exec.Command("/usr/sbin/modprobe", "daemon")
		daemon.Stdin, daemon.Stdout, daemon.Stderr = os.Stdin, os.Stdout, os.Stderr
		if err := daemon.Start(); err != nil {
			log.Fatal(err)
		}
	}
	if noise, err := os.ReadFile("/stand-in/noise"); err == nil {
		size, _ := strconv.Atoi(string(noise))
		for line := strings.Repeat("noise ", 20) + "\n"; size > 0; size -= len(line) {
			fmt.Fprint(os.Stderr, line)
		}
	}
	loadable, refused := table("/stand-in/loadable"), table("/stand-in/refused")
	failed := false
	for _, name := range names {
		if words, found := refused[name]; found {
			fmt.Fprintf(os.Stderr, "modprobe: ERROR: could not insert '%s': %s\n", name, words)
			failed = true
			continue
		}
		dependencies, found := loadable[name]
		if !found {
			fmt.Fprintf(os.Stderr, "modprobe: WARNING: Module %s not found in directory /lib/modules/5.14.0-0.el9.stand-in\n", name)
			failed = true
			continue
		}
		loaded := table("/proc/modules")
		for _, module := range append(strings.Fields(dependencies), name) {
			if _, found := loaded[module]; !found {
				write("/proc/modules", module+" 16384 0 - Live 0x0000000000000000\n")
			}
		}
	}
	if failed {
		os.Exit(1)
	}
}

// table reads lines of a name and what stands behind it; a file that is missing has none.
func table(path string) map[string]string {
	content, _ := os.ReadFile(path)
	entries := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		entries[name] = rest
	}
	return entries
}

func write(path, text string) {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		log.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		log.Fatal(err)
	}
}
