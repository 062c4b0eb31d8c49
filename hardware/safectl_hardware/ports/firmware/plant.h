/* What the robot firmware needs from a robot: sensors and motors. Write these three functions. */
#ifndef PLANT_H
#define PLANT_H

/* Called once per period: sensors, SF_NX values in the units of the specification. */
void plant_observe(float observation[]);

/* Called once per period with a finite action within the limits. */
void plant_apply(const float action[]);

/* Called when the board stops, and once per period while it is stopped. Writes what it applied. */
void plant_stop(float applied[]);

#endif
