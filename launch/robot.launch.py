"""`robot.launch.xml` for launch files in Python."""

from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitutions import ThisLaunchFileDir

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    source = AnyLaunchDescriptionSource([ThisLaunchFileDir(), "/robot.launch.xml"])
    return LaunchDescription([IncludeLaunchDescription(source)])
