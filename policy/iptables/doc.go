// SPDX-License-Identifier: Apache-2.0

// Package iptables translates rules of iptables into a policy: what
// iptables-save and ip6tables-save print, a shell script of iptables commands,
// and ufw's user.rules.
//
// It does not translate rule by rule, since what a rule lets in depends on
// those before it. It plays all packets through the chains at once, as sets
// (see region), and looks for the policy that lets in what comes out. So user
// chains, RETURN, negations and a DROP before an ACCEPT mean what they mean to
// netfilter. Where the policy cannot say it, it says less, never more: a match
// that is not understood is taken not to hold for an ACCEPT, and to hold for a
// DROP, unless such a DROP is to stay in netfilter ([Options].Keep). Each line of
// which something is lost, and each that has to stay, is listed.
package iptables
