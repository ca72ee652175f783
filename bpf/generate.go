// SPDX-License-Identifier: Apache-2.0

// Package bpf holds the datapath: C that the kernel runs, compiled, and the Go
// types and loaders that bpf2go generates from it. It decides nothing itself.
package bpf

//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -type event -type sweep -type seed -type flow -type flow_key -type port -type decision -type forwarder -type range_set -type range_index -type reader -type shown -type allowance Firewall firewall.bpf.c -- -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 Bench bench.bpf.c -- -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool bpf2go -cc clang-19 -strip llvm-strip-19 -no-global-types -type explanation Explain explain.bpf.c -- -Wall -Wextra -Werror -Wno-unused-parameter -mcpu=v3 -idirafter /usr/include/x86_64-linux-gnu -idirafter /usr/include/aarch64-linux-gnu
//go:generate go tool stringer -type FirewallReason -trimprefix FirewallReason -output reason_string.go
//go:generate go tool stringer -type FirewallFlowState -trimprefix FirewallFlowState -output flowstate_string.go
