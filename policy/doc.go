// SPDX-License-Identifier: Apache-2.0

// Package policy is the model of what a host lets in: the rules, the file they
// are written in, and what they mean for one packet.
//
// It is pure: it reads the policy file and /etc/services and knows no kernel,
// so that every decision in it can be tested on a table. A [Policy] is
// immutable once parsed; [Policy.WithRule] and [Policy.WithoutRule] return
// copies. [InsertRule], [RemoveRule] and [Rewrite] change the text of a file and
// nothing else in it. One table, in keys.go, says what each key of the file is
// and does; whoever adds a key adds it there. [Compile] turns rules into the two tables a datapath needs: one
// entry a port, and the sources of every restricted port.
package policy
