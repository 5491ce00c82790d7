package report

import (
	"fmt"
	"slices"
	"time"
)

// Median returns the middle of some values.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Spread is how far the values lie from their median, at most, in per cent.
func Spread(values []float64) string {
	m := Median(values)
	if m == 0 {
		return "–"
	}
	far := max(slices.Max(values)-m, m-slices.Min(values))
	return fmt.Sprintf("±%.0f %%", 100*far/m)
}

// Milliseconds prints a latency.
func Milliseconds(d time.Duration) string {
	ms := float64(d) / float64(time.Millisecond)
	if ms >= 100 {
		return fmt.Sprintf("%.0f ms", ms)
	}
	return fmt.Sprintf("%.2f ms", ms)
}

// Thousands prints a number with a comma in front of each three digits.
func Thousands(v float64) string {
	text := fmt.Sprintf("%.0f", v)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
