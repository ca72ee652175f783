// SPDX-License-Identifier: Apache-2.0

package doctor

import (
	"errors"
	"io/fs"
	"testing"
)

func TestHost(t *testing.T) {
	const (
		status = "proc/thread-self/status"
		enable = "proc/sys/net/core/bpf_jit_enable"
		mounts = "proc/thread-self/mountinfo"
		limits = "proc/thread-self/limits"
		locked = "sys/kernel/security/lockdown"
		linux  = "proc/sys/kernel/osrelease"

		compile = "sysctl -w net.core.bpf_jit_enable=1"
		mount   = "mkdir -p /sys/fs/bpf\nmount -t bpf bpf /sys/fs/bpf"
	)
	runAll(t, []testcase{
		{"container", well, file(status, "Uid:\t0\t0\t0\t0\nCapEff:\t00000000a80425fb\n"), "privileges", Fail, "lacks CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN", ""},
		{"user", well, file(status, "Uid:\t1000\t0\t0\t0\nCapEff:\t0000000000000000\n"), "privileges", Note, "without root", "sudo portcullis doctor"},
		{"old capabilities", well, file(status, "Uid:\t1000\t0\t0\t0\nCapEff:\t0000000000201000\n"), "privileges", OK, "", ""},
		{"none", well, file("sys/kernel/btf/vmlinux", ""), "btf", Fail, "CONFIG_DEBUG_INFO_BTF=y", ""},
		{"refused", well, func(s *situation) { s.attempt.err = errors.New("this kernel has no FnLoop\nand more") }, "kernel", Fail, "this kernel has no FnLoop", ""},
		{"no frags", well, func(s *situation) { s.attempt.Frags = errors.New("no") }, "kernel", Note, "large MTU takes TC", ""},
		{"unseen", well, func(s *situation) { s.attempt.err = fs.ErrPermission }, "kernel", Note, "not seen without root", "sudo portcullis doctor"},
		{"off", well, file(enable, "0\n"), "jit", Warn, "interpreted", compile},
		{"debug", well, file(enable, "2\n"), "jit", Warn, "kernel log", compile},
		{"hardened", well, file("proc/sys/net/core/bpf_jit_harden", "2\n"), "jit", Note, "hardened", "sysctl -w net.core.bpf_jit_harden=1"},
		{"not shown", well, file(enable, ""), "jit", OK, "", ""},
		{"not shown and off", well, func(s *situation) { s.files[enable], s.attempt.Compiled = "", false }, "jit", Warn, "interpreted",
			"nsenter --net=/proc/1/ns/net " + compile},
		{"low", well, file(linux, "5.10.0-30-amd64\n"), "memlock", Fail, "8388608 bytes", "ulimit -l unlimited"},
		{"unlimited", well, func(s *situation) {
			s.files[linux], s.files[limits] = "4.19.0\n", "Max locked memory         unlimited    unlimited    bytes\n"
		}, "memlock", OK, "not limited", ""},
		{"of 5.11", well, file(linux, "5.11.0\n"), "memlock", OK, "no limit", ""},
		{"confidentiality", well, file(locked, "none integrity [confidentiality]\n"), "lockdown", Fail, "boot with lockdown=integrity", ""},
		{"integrity", well, file(locked, "none [integrity] confidentiality\n"), "lockdown", OK, "for integrity", ""},
		{"not there", well, file(locked, ""), "lockdown", OK, "not locked down", ""},
		{"not mounted", stopped, file(mounts, "23 22 0:21 / /sys rw - sysfs sysfs rw\n"), "bpffs", Note, "at /sys/fs/bpf:", mount},
		{"covered", stopped, file(mounts, healthy[mounts]+"40 23 0:40 / /sys/fs/bpf rw - tmpfs none rw\n"), "bpffs", Note, "", mount},
		{"elsewhere", stopped, func(s *situation) { s.options.PinPath = "/run/bpf/x" }, "bpffs", Note, "", "mkdir -p /run/bpf/x\nmount -t bpf bpf /run/bpf/x"},
		{"hidden", stopped, func(s *situation) {
			s.files[mounts], s.attempt.hidden = "23 22 0:21 / /sys rw - sysfs sysfs rw\n", true
		}, "bpffs", Fail,
			"ip netns exec", "nsenter --net=/run/netns/NAME portcullis up eth0"},
	})
}
