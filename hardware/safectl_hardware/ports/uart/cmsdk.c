/* UART 0 of the Arm MPS2 images: "Cortex-M System Design Kit", APB UART. */
#include "uart.h"

#define UART_BASE 0x40004000u
#define UART_DATA (*(volatile uint32_t *)(UART_BASE + 0x00u))
#define UART_STATE (*(volatile uint32_t *)(UART_BASE + 0x04u))
#define UART_CONTROL (*(volatile uint32_t *)(UART_BASE + 0x08u))
#define UART_DIVIDER (*(volatile uint32_t *)(UART_BASE + 0x10u))

enum { TRANSMIT_FULL = 1, RECEIVE_FULL = 2 }; /* state */
enum { ENABLE_BOTH = 3, CLOCK_HZ = 25000000, BAUD = 115200 };

int uart_init(void) {
    UART_DIVIDER = CLOCK_HZ / BAUD;
    UART_CONTROL = ENABLE_BOTH;
    return 0;
}

int uart_read(void) {
    return (UART_STATE & RECEIVE_FULL) != 0u ? (int)(UART_DATA & 0xffu) : -1;
}

void uart_write(uint8_t byte) {
    while ((UART_STATE & TRANSMIT_FULL) != 0u) {
    }
    UART_DATA = byte;
}
