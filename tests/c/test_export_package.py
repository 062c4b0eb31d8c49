"""The emitted package: static checks, C++, layouts, fast-math, and what its README claims."""

import inspect
import re
import subprocess
from importlib.resources import files

import numpy as np
import pytest
import torch
from torch import nn

from safectl.errors import UnknownNameError
from safectl.export import (
    ChanceConstraint,
    Network,
    chance_constrained_program,
    emit_c,
    guarded_program,
    linear_mpc_program,
    quantise,
    torch_network,
)
from safectl.export.emit_c import C_FLAGS
from safectl.export.estimate import estimate_instructions
from safectl.export.interpret import interpret
from safectl.export.kinds.activation import FUNCTIONS, SLOPED
from safectl.planners import LinearMPC
from safectl.safeguards import BarrierQP, Chain, RateLimit
from safectl.spec import Signal, Spec
from safectl.types import Status
from safectl_envs.catalogue import find_world
from safectl_hardware.verify import verify_on_board

ALWAYS = ("sf_net", "sf_net_test", "sf_core", "sf_watchdog")
STACK_BOUND = 640  # bytes, as the README says

CLANG_TIDY = (
    "-*,bugprone-*,cert-*,clang-analyzer-*,misc-*,performance-*,-bugprone-easily-swappable-parameters,"
    "-misc-include-cleaner,-bugprone-implicit-widening-of-multiplication-result,"
    "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"
)
MISRA_DEVIATIONS = {
    *("2.5", "2.7", "8.7", "8.9", "11.5", "12.1", "12.3", "15.5", "17.8", "18.4", "20.1", "20.5"),
    *("20.10", "10.1", "10.3", "10.4", "10.8", "20.7", "21.15"),
}
"""Advisory rules, then the required ones of docs/decisions/0022: int as Boolean, signed shifts."""


class Memory(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.GRU(4, 5, batch_first=True), nn.LSTM(5, 3, batch_first=True)

    def forward(self, x):
        return self.second(self.first(x)[0])[0]


def filtered(name):
    """A safeguard with every kind of filter, a critic, a predictive controller."""
    if name == "mpc":
        A = torch.eye(4) + 0.1 * torch.diag(torch.ones(3), 1)  # a chain of integrators
        B = torch.tensor([[0.0], [0.0], [0.0], [0.1]])
        signals = tuple(Signal(f"x{i}", "1", -1.0, 1.0) for i in range(4))
        spec = Spec(signals, (Signal("u", "1", -1.0, 1.0),), 0.1)
        planner = LinearMPC(spec, A, B, torch.eye(4), torch.eye(1), 12)
        return linear_mpc_program("net", planner)
    world = find_world("DoubleIntegrator")
    network = Network(nn.Sequential(nn.Linear(6, 16), nn.Tanh(), nn.Linear(16, 2)))
    if name == "chance":
        critic = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Tanh())
        critic.append(nn.Linear(16, 1))
        constraint = ChanceConstraint(critic, Network(nn.Sequential(nn.Linear(6, 1))))
        return chance_constrained_program("net", world.spec, network, constraint)
    guard = Chain(
        RateLimit(world.spec, [8.0, 8.0], rows=1),
        BarrierQP(world.barrier, world.dynamics, fallback=world.fallback, rate=0.5),
        fallback=world.fallback,
    )
    return guarded_program("net", world.spec, network, guard, state=range(4))


def build(name):
    torch.manual_seed(0)
    if name in FILTERS:
        return filtered(name)
    if name == "memory":
        return torch_network("net", Memory(), (1, 4), stateful=True)
    layers = [
        nn.Conv2d(2, 6, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 6, 3, groups=6),
    ]
    layers += [nn.Tanh(), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(24, 5), nn.LayerNorm(5)]
    program = torch_network("net", nn.Sequential(*layers, nn.GELU(), nn.Softmax(-1)), (2, 10, 10))
    rows = np.random.default_rng(0).standard_normal((50, 200)).astype(np.float32)
    return program if name == "float" else quantise(program, rows, bits=int(name))


FILTERS = ("guard", "chance", "mpc")
PACKAGES = ("float", "8", "16", "memory", *FILTERS)


def run(*command):
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    folders = {}
    for name in PACKAGES:
        folders[name] = tmp_path_factory.mktemp("package") / "c"
        emit_c(build(name), folders[name])
    return folders


@pytest.mark.parametrize("name", PACKAGES)
def test_static_checks_find_nothing_but_the_listed_deviations(packages, name):
    folder = packages[name]
    sources = sorted(folder.glob("*.c"))
    options = ("--quiet", "--std=c99", "--suppress=missingIncludeSystem", f"-I{folder}")
    checks = ("--enable=warning,style,performance,portability", "--error-exitcode=1")
    found = run("cppcheck", *options, *checks, *sources)
    assert found.returncode == 0, found.stderr
    misra = run("cppcheck", *options, "--addon=misra", *sources).stderr
    broken = set(re.findall(r"misra-c2012-([\d.]+)", misra))
    assert broken  # the add-on ran
    assert not broken - MISRA_DEVIATIONS


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_clang_tidy_finds_nothing(packages, name):
    folder = packages[name]
    sources = sorted(folder.glob("*.c"))
    found = run(
        *("clang-tidy", "--quiet", f"-checks={CLANG_TIDY}", "--warnings-as-errors=*", *sources),
        *("--", "-std=c99", f"-I{folder}"),
    )
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("name", PACKAGES)
def test_the_headers_are_cpp_and_the_self_test_passes_from_a_cpp_caller(packages, name, tmp_path):
    folder = packages[name]
    main = tmp_path / "main.cpp"
    headers = sorted(path.name for path in folder.glob("*.h") if "body" not in path.name)
    includes = "".join(f'#include "{header}"\n' for header in headers)
    main.write_text(
        f"{includes}static sf_net_state state;\n"
        "int main() { return sf_net_selftest(&state) == 0 ? 0 : 1; }\n"
    )
    objects = []
    for source in folder.glob("*.c"):
        objects.append(tmp_path / f"{source.stem}.o")
        done = run("gcc", *C_FLAGS, "-O2", "-c", source, "-o", objects[-1])
        assert done.returncode == 0, done.stderr
    options = ("-std=c++11", "-pedantic", "-Wall", "-Wextra", "-Werror", f"-I{folder}")
    done = run("g++", *options, main, *objects, "-o", tmp_path / "main")
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "main").returncode == 0


@pytest.mark.parametrize("name", PACKAGES)
def test_no_flag_makes_an_observation_with_nan_pass(packages, name, tmp_path):
    folder = packages[name]
    main = tmp_path / "main.c"
    main.write_text(
        """
        #include "sf_net.h"
        static sf_net_state state;
        int main(void) {
            static const uint32_t words[4] = {0x7fc00000u, 0xffc00000u, 0x7f800000u, 0xff800000u};
            static float observation[SF_NET_OBSERVATIONS], action[SF_NET_ACTIONS];
            sf_certificate certificate;
            int failures = 0;
            sf_net_init(&state);
            for (int i = 0; i < 4; i++) {
                sf_words(&observation[i], &words[i], 1);
                failures += sf_net_step(&state, observation, action, &certificate) != SF_FALLBACK;
                failures += !sf_all_finite(action, SF_NET_ACTIONS);
                observation[i] = 0.0f;
            }
            return failures;
        }
        """
    )
    sources = sorted(folder.glob("*.c"))
    options = (*C_FLAGS, "-O3", "-ffast-math", f"-I{folder}")
    assert run("gcc", *options, main, *sources, "-o", tmp_path / "main").returncode == 0
    assert run(tmp_path / "main").returncode == 0


FAST_MATH = ("-O3", "-ffast-math", "-fno-associative-math")
"""Sums in another order may stay finite where ours overflow; then both are right."""

HUGE_MAIN = """
#include <stdio.h>
#include "sf_net.h"
int main(void) {
    static sf_net_state state;
    float observation[SF_NET_OBSERVATIONS], action[SF_NET_ACTIONS];
    sf_certificate certificate;
    while (fread(observation, sizeof observation, 1, stdin) == 1) {
        sf_net_init(&state);
        const sf_status status = sf_net_step(&state, observation, action, &certificate);
        printf("%d %d\\n", (int)status, sf_all_finite(action, SF_NET_ACTIONS));
    }
    return 0;
}
"""


def found_of_rows(folder, rows, compiler, where):
    """Return the status, and whether the action is finite, of each row from the initial state."""
    (where / "main.c").write_text(HUGE_MAIN)
    files = (where / "main.c", *sorted(folder.glob("*.c")))
    done = run(compiler, *C_FLAGS, *FAST_MATH, f"-I{folder}", *files, "-o", where / "main")
    assert done.returncode == 0, done.stderr
    bits = rows.astype(np.float32).tobytes()
    done = subprocess.run([where / "main"], input=bits, capture_output=True, timeout=20, check=True)
    return np.array(done.stdout.split(), int).reshape(-1, 2).T


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("last", [nn.ReLU(), nn.Tanh()], ids=lambda layer: type(layer).__name__)
def test_no_flag_lets_an_activation_turn_nan_into_a_number(last, compiler, tmp_path):
    first, second = nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)
    first.weight.data = 3e38 * torch.eye(2)
    second.weight.data = torch.tensor([[1.0, -1.0]] * 3)
    program = torch_network("net", nn.Sequential(first, second, last), (2,))
    emit_c(program, tmp_path / "c")
    # infinity less infinity, twice, and a row without
    rows = np.array([[2.0, 2.0], [-3.0, -3.0], [0.5, 0.25]], np.float32)
    assert (interpret(program, rows).status == Status.FALLBACK).tolist() == [True, True, False]
    status, is_finite = found_of_rows(tmp_path / "c", rows, compiler, tmp_path)
    assert (status == Status.FALLBACK).tolist() == [True, True, False]
    assert is_finite.all()


@pytest.mark.slow
def test_no_flag_lets_any_activation_turn_nan_into_a_number(tmp_path):
    names = [name for name in FUNCTIONS if name not in SLOPED]
    calls = [f"sf_{name}(y, x, 9);" for name in names]
    calls += [f"sf_{name}(y, x, 0.5f, 9);" for name in SLOPED] + ["sf_softmax(y, x, 1, 9);"]
    checks = "".join(f"{call} found |= sf_all_finite(y, 9);\n" for call in calls)
    runtime = files("safectl.export") / "runtime"
    main = tmp_path / "main.c"
    main.write_text(
        '#include "sf_activation.h"\n#include "sf_core.h"\n'
        "int main(int count, char **words) { (void)words; float x[9], y[9]; int found = 0;\n"
        "const uint32_t bits[2] = {0x7fc00000u, 0xffc00000u};\n"
        "for (int sign = 0; sign < 2; sign++) {\n"
        "for (int i = 0; i < 9; i++) { x[i] = (float)count; }\n"
        f"sf_words(&x[3], &bits[sign], 1);\n{checks}}} return found; }}\n"
    )
    sources = (runtime / "sf_activation.c", runtime / "sf_core.c")
    for compiler in ("gcc", "clang"):
        for flag in ("-ffast-math", "-ffinite-math-only"):
            options = (*C_FLAGS, "-O3", flag, f"-I{runtime}")
            done = run(compiler, *options, main, *sources, "-o", tmp_path / "main")
            assert done.returncode == 0, done.stderr
            assert run(tmp_path / "main").returncode == 0, (compiler, flag)


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["gcc", "clang"])
@pytest.mark.parametrize("name", FILTERS)
def test_no_flag_certifies_what_overflows_within(packages, name, compiler, tmp_path):
    program, rng = build(name), np.random.default_rng(0)
    rows = rng.standard_normal((200, program.spec.nx)) * 10.0 ** rng.integers(30, 39, (200, 1))
    rows = np.clip(rows, -3.4e38, 3.4e38).astype(np.float32)
    overflows = interpret(program, rows).status == Status.FALLBACK
    assert overflows.any()
    status, is_finite = found_of_rows(packages[name], rows, compiler, tmp_path)
    assert (status[overflows] == Status.FALLBACK).all()
    assert is_finite.all()


LAYOUTS = {
    "arduino": ("library.properties", "src/sf_net.c", "src/sf_net.h", "examples/net/net.ino"),
    "zephyr": ("CMakeLists.txt", "prj.conf", "src/main.c", "controller/sf_net.c"),
    "platformio": ("platformio.ini", "src/main.cpp", "lib/sf_net/library.json"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_holds_the_same_controller_and_what_its_build_system_wants(layout, tmp_path):
    program = build("8")
    emit_c(program, tmp_path / "plain")
    emit_c(program, tmp_path / layout, layout=layout)
    for name in (*LAYOUTS[layout], "README.md"):
        text = (tmp_path / layout / name).read_text()
        assert text
        assert "${" not in text.replace("${controller}", "")
    placed = {path.name: path for path in (tmp_path / layout).rglob("*.[ch]")}
    for path in (tmp_path / "plain").glob("*.[ch]"):
        assert placed[path.name].read_bytes() == path.read_bytes()


ARDUINO = """
#pragma once
#include <cstdlib>
struct Line {
    void begin(long) {}
    void print(float, int) {}
    void print(char) {}
    void println(int) {}
    void println(const char *) { std::exit(1); }
};
static Line Serial;
static void delay(unsigned long) { std::exit(0); }
"""
ZEPHYR = """
#include <stdio.h>
#include <stdlib.h>
#define printk printf
#define k_msleep(milliseconds) exit((milliseconds) > 0 ? 0 : 2)
"""
SKETCH = "#include <Arduino.h>\n{}\nint main() {{ setup(); loop(); return 3; }}\n"
EXAMPLES = {
    "arduino": ("examples/net/net.ino", "Arduino.h", ARDUINO, SKETCH),
    "platformio": ("src/main.cpp", "Arduino.h", ARDUINO, SKETCH),
    "zephyr": ("src/main.c", "zephyr/kernel.h", ZEPHYR, "{}"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_example_of_a_layout_builds_and_takes_a_step_after_its_self_test(layout, tmp_path):
    """Against stand-ins of the frameworks, which end the program after one step."""
    emit_c(build("float"), tmp_path / "project", layout=layout)
    example, header, stand_in, frame = EXAMPLES[layout]
    (tmp_path / header).parent.mkdir(exist_ok=True)
    (tmp_path / header).write_text(stand_in)
    main = tmp_path / "main.c" if layout == "zephyr" else tmp_path / "main.cpp"
    main.write_text(frame.format((tmp_path / "project" / example).read_text()))
    (folder,) = (path.parent for path in (tmp_path / "project").rglob("sf_net.c"))
    objects = [tmp_path / f"{path.stem}.o" for path in folder.glob("*.c")]
    for path in objects:
        done = run("gcc", *C_FLAGS, "-c", folder / f"{path.stem}.c", "-o", path)
        assert done.returncode == 0, done.stderr
    tool = ("gcc",) if layout == "zephyr" else ("g++", "-std=c++11")
    options = ("-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{folder}")
    done = run(*tool, *options, main, *objects, "-o", tmp_path / "example")
    assert done.returncode == 0, done.stderr
    assert run(tmp_path / "example").returncode == 0


def test_an_unknown_layout_is_refused(tmp_path):
    with pytest.raises(UnknownNameError, match="arduino"):
        inspect.unwrap(emit_c)(build("float"), tmp_path / "c", layout="ardiuno")
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("name", PACKAGES)
def test_stack_and_instructions_are_as_the_readme_says(name):
    program = build(name)
    report = verify_on_board(program, rows=5)
    assert report.stack_bound_bytes <= STACK_BOUND
    assert 0.5 < report.instructions_max / estimate_instructions(program) < 2.0


def test_small_programs_hold_only_the_files_they_use(packages):
    files = {name: {path.stem for path in folder.glob("*.c")} for name, folder in packages.items()}
    assert files["memory"] == {*ALWAYS, "sf_nn", "sf_activation"}
    assert files["8"] - files["float"] == {"sf_integer"}
