// SPDX-License-Identifier: Apache-2.0

// Package policy is the model of what a host lets in: the rules, the file they
// are written in, and what they mean for one packet.
//
// It is pure: it reads the policy file and /etc/services and knows no kernel,
// so that every decision in it can be tested on a table. A [Policy] is
// immutable once parsed; [Policy.WithRule] and [Policy.WithoutRule] return
// copies. [InsertRule] and [RemoveRule] change the text of a file and nothing
// else in it. [Compile] turns rules into the two tables a datapath needs: one
// entry a port, and the sources of every restricted port.
package policy
