// Contain becomes a command that sees what a container sees: in a mount namespace of its own.
//
// In:  contain MOUNT... -- COMMAND...; MOUNT, in their order: "own PATH", to be written whatever is locked around it; "see FROM TO",
// the same files read-only at another path; "lock PATH", read-only; "hide PATH", an empty directory. What is not there is passed over.
// Exit: the command's; 125 if there is none.
package main

import (
	"log"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

func main() {
	log.SetFlags(0)
	runtime.LockOSThread()
	end := slices.Index(os.Args, "--")
	check(syscall.Unshare(syscall.CLONE_NEWNS))
	check(syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""))
	for _, words := range os.Args[1:end] {
		action, from, _ := strings.Cut(words, " ")
		from, to, found := strings.Cut(from, " ")
		if !found {
			to = from
		}
		if _, err := os.Stat(from); err != nil {
			continue
		}
		if action == "hide" {
			check(syscall.Mount("none", to, "tmpfs", syscall.MS_RDONLY, "mode=755"))
			continue
		}
		check(syscall.Mount(from, to, "", syscall.MS_BIND|syscall.MS_REC, ""))
		if action != "own" {
			check(syscall.Mount("", to, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))
		}
	}
	command := os.Args[end+1:]
	path, err := exec.LookPath(command[0])
	check(err)
	check(syscall.Exec(path, command, os.Environ()))
}

func check(err error) {
	if err != nil {
		log.Print("contain: ", err)
		os.Exit(125)
	}
}
