// SPDX-License-Identifier: Apache-2.0

// Package maps gives typed access to each map of the datapath. It is the only
// place that turns policies, addresses and flows into their wire form and back.
package maps
