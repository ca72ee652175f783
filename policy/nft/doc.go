// SPDX-License-Identifier: Apache-2.0

// Package nft translates rules of nftables into a policy: what "nft list
// ruleset" and "nft -j list ruleset" print, and files for "nft -f" such as
// /etc/nftables.conf.
//
// Both notations are read into the same tables, chains and rules. A rule
// becomes rules of iptables, in chains that decide alike, and package iptables
// plays packets through these. What has no option of iptables is in doubt: it
// lets nothing in, and may drop.
package nft
