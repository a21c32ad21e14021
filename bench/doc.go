// Package bench measures the accelerated datapath against the kernel baseline on the lab's topologies: alternating in
// one run, since machines drift, with medians of the pair-wise ratios, and every raw figure kept.
package bench
