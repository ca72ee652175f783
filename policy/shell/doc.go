// SPDX-License-Identifier: Apache-2.0

// Package shell follows a shell script as far as it says by itself what it
// does, and runs nothing.
//
// It knows values that the script has set, and takes all others for unknown.
// Where it depends on something unknown which way the script goes, it goes both
// ways and joins what they leave: what is alike is known, all else is in doubt.
// What it follows is a whitelist. A construct or a program beyond it may have
// done anything, and so has to be told to the [World] on which programs act.
package shell
