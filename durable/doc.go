// Package durable has tasks that survive: they are on disk when adding them
// returns, and run at least once.
package durable
