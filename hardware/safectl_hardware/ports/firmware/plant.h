/* What the robot firmware needs from a robot: sensors and motors. Write these three functions.
 *
 * None may block: each returns within a quarter of a period, and well before the counter of the port
 * wraps (2^24 core clocks, 0.1 s at 168 MHz), as time that is not counted delays the stop by
 * silence. Read slow sensors in an interrupt. */
#ifndef PLANT_H
#define PLANT_H

/* Called once per period: sensors, SF_NX values in the units of the specification. */
void plant_observe(float observation[]);

/* Called once per period with a finite action within the limits. */
void plant_apply(const float action[]);

/* Called when the board stops, and once per period while it is stopped. Writes what it applied. */
void plant_stop(float applied[]);

#endif
