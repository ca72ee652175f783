// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// room is a thread in a network namespace and a mount namespace of its own, with a bpf filesystem of its own. None has
// a name: when the process ends, however it does, the kernel takes all of it away.
type room struct {
	work chan func()
}

func newRoom() (*room, error) {
	r := &room{make(chan func())}
	entered := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and the namespaces with it
		err := enter()
		entered <- err
		if err == nil {
			for work := range r.work {
				work()
			}
		}
	}()
	if err := <-entered; err != nil {
		return nil, err
	}
	return r, nil
}

func enter() error {
	if err := unix.Unshare(unix.CLONE_NEWNET | unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("bpf", "/sys/fs/bpf", "bpf", 0, "mode=0700"); err != nil {
		return fmt.Errorf("mount a bpf filesystem: %w", err)
	}
	// What is measured goes before what else this machine does.
	return unix.Setpriority(unix.PRIO_PROCESS, 0, -20)
}

// do runs work in the room, and so do the processes that it starts.
func (r *room) do(work func() error) error {
	done := make(chan error, 1)
	r.work <- func() { done <- work() }
	return <-done
}

// begin is do that does not wait: what it returns does.
func (r *room) begin(work func() error) (wait func() error) {
	done := make(chan error, 1)
	r.work <- func() { done <- work() }
	return func() error { return <-done }
}

func (r *room) close() { close(r.work) }

// twoCPUs tells where the two sides are to run: where the scheduler leaves them is a matter of luck, and of a third of the
// rate.
func twoCPUs() (outside, inside int, ok bool) {
	var set unix.CPUSet
	if unix.SchedGetaffinity(os.Getpid(), &set) != nil {
		return 0, 0, false
	}
	var cpus []int
	for cpu := range 8 * int(unsafe.Sizeof(set)) {
		if set.IsSet(cpu) {
			cpus = append(cpus, cpu)
		}
	}
	if len(cpus) < 2 {
		return 0, 0, false
	}
	return cpus[0], cpus[1], true
}

// onCPU runs work on the CPU of one side.
func onCPU(isInside bool, work func() error) error {
	cpu, inside, ok := twoCPUs()
	if !ok {
		return work()
	}
	if isInside {
		cpu = inside
	}
	var before, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &before); err != nil {
		return err
	}
	one.Set(cpu)
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return err
	}
	return errors.Join(work(), unix.SchedSetaffinity(0, &before))
}

// namespace opens the network namespace of the calling thread.
func namespace() (*os.File, error) { return os.Open("/proc/thread-self/ns/net") }

// setting writes a value below /proc/sys/net.
func setting(key, value string) error {
	return os.WriteFile(filepath.Join("/proc/sys/net", key), []byte(value), 0)
}
