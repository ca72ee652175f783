#!/bin/bash
# SPDX-License-Identifier: Apache-2.0
#
# What every guest has in common. To be sourced; then choose_accelerator KERNEL sets these:
#   accelerator  kvm or tcg
#   qemu         the command, without memory and devices
#   parameters   of the kernel, for its command line
# shellcheck disable=SC2034 # they are for those who source this

# A device that is there may still not run a guest, and QEMU goes on with emulation only where KVM does not even begin.
# The kernel alone finds no root file system and reboots, in a second where KVM works.
kvm_works() {
	[ -w /dev/kvm ] && (timeout 10 qemu-system-x86_64 -accel kvm -cpu max -m 512 -nodefaults -display none -no-reboot \
		-kernel "$1" -append panic=-1 || exit) </dev/null >/dev/null 2>&1
}

choose_accelerator() {
	accelerator=tcg
	# On a busy machine the guest measures its emulated TSC wrongly, and its clock then runs ten times too fast.
	local clock="clocksource=hpet tsc=unstable"
	# Emulated processors take turns in one thread. With a thread each, one may run what another has just patched:
	# Debian 13's 6.12 died of an int3 in bpf_dispatcher_xdp_func, where programs are replaced under traffic.
	local turns=,thread=single
	! kvm_works "$1" || accelerator=kvm clock='' turns=''
	# After a cmpxchg16b that QEMU 7.2 emulates the flags are garbage now and then: Debian 13's 6.12 died of it in 4
	# boots of 12, and in none of 12 without that instruction.
	qemu=(qemu-system-x86_64 -M q35 -accel "$accelerator$turns" -cpu "max,-cx16" -smp 2
		-nodefaults -no-user-config -display none -no-reboot)
	parameters="console=ttyS0 loglevel=5 panic=-1 net.ifnames=0 mitigations=off no_timer_check $clock nokaslr"
	parameters+=" random.trust_cpu=on rcupdate.rcu_expedited=1 cryptomgr.notests"
}
