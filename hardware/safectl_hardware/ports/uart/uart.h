/* A serial line, polled: no interrupt, no buffer but the one of the hardware. */
#ifndef UART_H
#define UART_H

#include <stdint.h>

/* Sets up clock, pins and line. Returns 0, or -1 if the clock does not start. */
int uart_init(void);

/* Returns the next received byte, or -1 if there is none. */
int uart_read(void);

/* Waits until the line takes the byte. */
void uart_write(uint8_t byte);

#endif
