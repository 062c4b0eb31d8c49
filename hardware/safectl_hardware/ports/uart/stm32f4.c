/* USART 1 of an STM32F405 on PA9 (out) and PA10 (in), 115,200 baud; core clock 168 MHz.
 *
 * Registers: ST RM0090. The emulator has no clock controller: it reads as zero and runs at 168 MHz
 * at once. The sequence for a real part follows the manual; it has not run on one. */
#include "uart.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RCC_CR REGISTER(0x40023800u)
#define RCC_PLLCFGR REGISTER(0x40023804u)
#define RCC_CFGR REGISTER(0x40023808u)
#define RCC_AHB1ENR REGISTER(0x40023830u)
#define RCC_APB2ENR REGISTER(0x40023844u)
#define FLASH_ACR REGISTER(0x40023c00u)
#define GPIOA_MODER REGISTER(0x40020000u)
#define GPIOA_AFRH REGISTER(0x40020024u)
#define USART1_SR REGISTER(0x40011000u)
#define USART1_DR REGISTER(0x40011004u)
#define USART1_BRR REGISTER(0x40011008u)
#define USART1_CR1 REGISTER(0x4001100cu)

#define HSI_READY (1u << 1)
#define PLL_ON (1u << 24)
#define PLL_READY (1u << 25)
#define PLL_HSI_168_MHZ ((7u << 24) | (0u << 16) | (336u << 6) | 16u) /* 16 MHz / 16 * 336 / 2 */
#define WAIT_STATES_5 5u
#define DIVIDERS ((4u << 13) | (5u << 10)) /* APB2 at 84 MHz, APB1 at 42 MHz */
#define FROM_PLL 2u
#define CLOCK_MASK (3u << 2)
#define ATTEMPTS 100000u
#define APB2_HZ 84000000u
#define BAUD 115200u

enum { RECEIVED = 1 << 5, TRANSMIT_EMPTY = 1 << 7 };
enum { ENABLE = (1 << 13) | (1 << 3) | (1 << 2) };

/* Waits a bounded time. Returns 0 if the bits become equal to `wanted`. */
static int await(volatile uint32_t *address, uint32_t mask, uint32_t wanted) {
    for (uint32_t i = 0; i < ATTEMPTS; i++) {
        if ((*address & mask) == wanted) {
            return 0;
        }
    }
    return -1;
}

static int start_clock(void) {
    if ((RCC_CR & HSI_READY) == 0u) {
        return 0; /* the emulator */
    }
    FLASH_ACR = WAIT_STATES_5;
    RCC_PLLCFGR = PLL_HSI_168_MHZ;
    RCC_CR |= PLL_ON;
    if (await(&RCC_CR, PLL_READY, PLL_READY) != 0) {
        return -1;
    }
    RCC_CFGR = DIVIDERS | FROM_PLL;
    return await(&RCC_CFGR, CLOCK_MASK, FROM_PLL << 2);
}

int uart_init(void) {
    if (start_clock() != 0) {
        return -1;
    }
    RCC_AHB1ENR |= 1u;      /* port A */
    RCC_APB2ENR |= 1u << 4; /* USART 1 */
    GPIOA_MODER = (GPIOA_MODER & ~(0xfu << 18)) | (0xau << 18);
    GPIOA_AFRH = (GPIOA_AFRH & ~(0xffu << 4)) | (0x77u << 4);
    USART1_BRR = APB2_HZ / BAUD;
    USART1_CR1 = ENABLE;
    return 0;
}

int uart_read(void) {
    return (USART1_SR & RECEIVED) != 0u ? (int)(USART1_DR & 0xffu) : -1;
}

void uart_write(uint8_t byte) {
    while ((USART1_SR & TRANSMIT_EMPTY) == 0u) {
    }
    USART1_DR = byte;
}
