/* Numbers so small that a float has fewer digits for them (below 1.2e-38) take many processors a
 * hundred times as long. A thread that flushes takes them for zeros, as operands and as results. */
#ifndef NIBBLE_BASE_DENORMALS_H
#define NIBBLE_BASE_DENORMALS_H

/* The calling thread flushes from now on; returns what denormals_restore gives back. On a machine
 * that is not known here nothing changes. */
unsigned long denormals_flush(void);
void denormals_restore(unsigned long before);

#endif
