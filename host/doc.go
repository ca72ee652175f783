// SPDX-License-Identifier: Apache-2.0

// Package host reads what the kernel says of this host: sockets and who
// holds them, the session of the user, routes, interfaces and how they stand
// on one another. It changes nothing.
package host
