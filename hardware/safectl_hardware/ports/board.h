/* What the start-up code calls when main returns or the processor faults. */
#ifndef BOARD_H
#define BOARD_H

void board_exit(int status) __attribute__((noreturn));

#endif
