"""Plugins are found in every origin; a fault in one is reported with its file."""

from __future__ import annotations

import dataclasses
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import easypruner
from easypruner.errors import ConfigError, PluginError
from easypruner.plugins import HOOKS, Plugins, load_plugins
from easypruner.plugins.registry import BUDGETS, MASK_SOURCES, REGISTRIES, build
from easypruner.report.artifacts import collect_artifacts
from easypruner.strategies import Context
from easypruner.testing import example_inputs
from easypruner.testing.networks import Plain
from tests.helpers.plugin_files import write_distribution, write_plugin, write_source

BUILT_INS = sorted(path.stem for path in Path(__file__).parents[2].glob('plugins/[!_]*.py'))


def names(plugins: Plugins) -> set[str]:
    return {component.name for component in plugins.components}


def origin(plugins: Plugins, name: str) -> str:
    return next(c.plugin.origin for c in plugins.components if c.name == name)


class TestDiscovery:
    def test_every_built_in_file_is_a_plugin(self) -> None:
        plugins = load_plugins()
        assert set(BUILT_INS) <= {plugin.name for plugin in plugins.plugins}
        assert {'BNScale', 'Macs', 'MaskSparsity'} <= names(plugins)

    def test_components_report_their_origin(self) -> None:
        info = next(c for c in load_plugins().components if c.name == 'BNScale')
        assert info.kind == 'mask source'
        assert info.plugin.version == easypruner.__version__
        assert Path(info.plugin.file).name == 'bn_scale.py'
        assert info.summary.startswith('Scores a unit by |gamma|')

    def test_folder(self, tmp_path: Path) -> None:
        file = write_source(tmp_path, 'ByPlace')
        assert origin(load_plugins([tmp_path]), 'ByPlace') == str(file)

    def test_custom_imports(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_source(tmp_path, 'Imported', 'module_of_custom_imports.py')
        monkeypatch.syspath_prepend(tmp_path)
        for given in (
            'module_of_custom_imports',
            ['module_of_custom_imports'],
            {'imports': ['module_of_custom_imports'], 'allow_failed_imports': False},
        ):
            plugins = load_plugins(custom_imports=given)
            assert 'module_of_custom_imports' in origin(plugins, 'Imported')

    def test_entry_point(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_source(tmp_path, 'Installed', 'module_of_entry_point.py')
        write_distribution(tmp_path, 'installed_thing', 'module_of_entry_point', 'thing')
        monkeypatch.syspath_prepend(tmp_path)
        plugins = load_plugins()
        info = next(c.plugin for c in plugins.components if c.name == 'Installed')
        assert (info.name, info.version) == ('thing', '1.2.3')
        assert info.origin == 'installed_thing (module_of_entry_point)'

    def test_built_ins_come_before_entry_points_before_imports_before_folders(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_source(tmp_path / 'site', 'First', 'order_first.py')
        write_source(tmp_path / 'site', 'Third', 'order_third.py')
        write_source(tmp_path / 'folder', 'Fourth')
        write_distribution(tmp_path / 'site', 'order', 'order_first', 'first')
        monkeypatch.syspath_prepend(tmp_path / 'site')
        plugins = load_plugins([tmp_path / 'folder'], ['order_third'])
        found = [plugin.name for plugin in plugins.plugins]
        assert found[-3:] == ['first', 'order_third', 'fourth']

    def test_a_plugin_found_twice_counts_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_source(tmp_path, 'Twice', 'found_twice.py')
        monkeypatch.syspath_prepend(tmp_path)
        plugins = load_plugins([tmp_path, tmp_path], ['found_twice', 'easypruner_plugins.macs'])
        assert [c.name for c in plugins.components].count('Twice') == 1
        assert len(plugins.plugins) == len(load_plugins().plugins) + 1

    def test_the_folder_of_the_built_ins_may_be_given(self) -> None:
        import easypruner_plugins

        assert names(load_plugins(easypruner_plugins.__path__)) == names(load_plugins())

    def test_a_missing_folder_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(PluginError, match=r'there is no plugin folder .*nowhere'):
            load_plugins([tmp_path / 'nowhere'])

    def test_a_folder_without_plugins_is_an_error(self, tmp_path: Path) -> None:
        write_plugin(tmp_path, '_helper.py', '')
        with pytest.raises(PluginError, match='has no plugins'):
            load_plugins([tmp_path])

    def test_custom_imports_of_another_type_are_an_error(self) -> None:
        with pytest.raises(ConfigError, match='names of modules, got 3'):
            load_plugins(custom_imports=[3])

    def test_helpers_of_a_folder_are_imported_relatively(self, tmp_path: Path) -> None:
        write_plugin(tmp_path, '_helper.py', 'NAME = "Helped"')
        write_plugin(
            tmp_path,
            'helped.py',
            'from easypruner import MaskSource, hookimpl\n'
            'from ._helper import NAME\n'
            'Helped = type(NAME, (MaskSource,), {"score": print})\n'
            '@hookimpl\ndef easypruner_components(): return [Helped]\n',
        )
        before = list(sys.path)
        assert 'Helped' in names(load_plugins([tmp_path]))
        assert sys.path == before

    def test_folders_may_hold_files_of_one_name(self, tmp_path: Path) -> None:
        write_source(tmp_path / 'one', 'One', 'plugin.py')
        write_source(tmp_path / 'two', 'Two', 'plugin.py')
        assert {'One', 'Two'} <= names(load_plugins([tmp_path / 'one', tmp_path / 'two']))


class TestLoadingAgain:
    def test_gives_the_same_classes(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Again')
        first, second = load_plugins([tmp_path]), load_plugins([tmp_path])
        assert first.components == second.components
        assert first.plugins == second.plugins

    def test_forgets_plugins_that_were_loaded_before(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Forgotten')
        load_plugins([tmp_path])
        assert 'Forgotten' in MASK_SOURCES.classes
        load_plugins()
        assert 'Forgotten' not in MASK_SOURCES.classes

    def test_sees_an_edited_file(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Before', 'edited.py')
        load_plugins([tmp_path])
        write_source(tmp_path, 'AfterTheEdit', 'edited.py')
        found = names(load_plugins([tmp_path]))
        assert 'AfterTheEdit' in found
        assert 'Before' not in found

    def test_a_failure_leaves_the_registries_as_they_were(self, tmp_path: Path) -> None:
        load_plugins()
        before = [dict(registry.classes) for registry in REGISTRIES]
        write_source(tmp_path, 'Fine')
        write_plugin(tmp_path, 'last.py', 'raise OSError("disk on fire")')
        with pytest.raises(PluginError):
            load_plugins([tmp_path])
        assert [dict(registry.classes) for registry in REGISTRIES] == before


RESIZES = ('def resize(self, layer, shapes): pass',)


def contributing(contract: str, *body: str) -> str:
    """Return a plugin with a class Own of a contract; lines ``Other = ...`` follow the class."""
    lines = [line for line in body if not line.startswith('Other')]
    others = [line for line in body if line.startswith('Other')]
    return '\n'.join(
        [
            f'from easypruner import {contract}, hookimpl',
            f'class Own({contract}):',
            *(f'    {line}' for line in lines),
            *others,
            '@hookimpl',
            f'def easypruner_components(): return [Own{", Other" * len(others)}]',
        ]
    )


MARKED = 'from easypruner import Budget, MaskSource, hookimpl\n@hookimpl\n'
BROKEN = {
    'import fails': (
        'import json\njson.loads("{")',
        r'cannot be imported.*json\.loads\("\{"\).*JSONDecodeError',
    ),
    'import exits': ('raise SystemExit(3)', 'cannot be imported.*SystemExit: 3'),
    'misspelled hook': (
        MARKED + 'def easypruner_component(): return []',
        "'easypruner_component', which is not a hook; did you mean 'easypruner_components'",
    ),
    'wrong argument': (
        MARKED + 'def easypruner_report(rums): return []',
        r'misdeclares a hook.*rums',
    ),
    'no decorator': (
        'def easypruner_components(): return []',
        r'defines easypruner_components\(\) without the decorator @hookimpl',
    ),
    'no hook': ('x = 1', 'implements no hook; expected one of easypruner_components'),
    'hook fails': (
        MARKED + 'def easypruner_components(): return 1 / 0',
        r'fails in easypruner_components\(\).*return 1 / 0.*ZeroDivisionError',
    ),
    'hook returns nothing': (
        MARKED + 'def easypruner_components(): pass',
        r'returns None from easypruner_components\(\); expected a list of classes',
    ),
    'hook returns a class': (
        MARKED + 'def easypruner_components(): return MaskSource',
        r'returns the class MaskSource from easypruner_components\(\); expected a list',
    ),
    'no class': (MARKED + 'def easypruner_components(): return [3]', 'contributes 3; expected'),
    'no component': (
        MARKED + 'def easypruner_components(): return [dict]',
        'contributes dict, which must subclass exactly one of MaskSource, Budget',
    ),
    'a contract itself': (
        MARKED + 'def easypruner_components(): return [MaskSource]',
        'contributes MaskSource, which must subclass exactly one',
    ),
    'abstract': (
        MARKED + 'def easypruner_components(): return [type("Half", (Budget,), {})]',
        'contributes Half, which does not define __call__, asked, delivered',
    ),
    'misspelt abstract': (
        contributing('LayerHandler', 'handles = (dict,)', 'def resized(self, *_): pass'),
        'Own, which does not define resize; is its resized meant to be resize',
    ),
    'misspelt score': (
        contributing('MaskSource', 'def scores(self, graph, context): return {}'),
        r'Own, which defines neither score\(\) nor select\(\); is its scores meant to be score\?',
    ),
    'no penalty': (
        contributing('Regularizer', 'def push(self, graph, masks): pass'),
        r'Own, which defines neither penalty\(\), add_gradient\(\) nor forward_penalty\(\)\n',
    ),
    'one class twice': (
        contributing('MaskSource', 'score = print', 'Other = type("Own", (Own,), {})'),
        "contributes a mask source 'Own' twice",
    ),
    'handler with arguments': (
        contributing('LayerHandler', 'handles = (dict,)', 'def __init__(self, a): pass', *RESIZES),
        r"handler 'Own' of plugin 'broken'.*cannot be made without arguments: TypeError",
    ),
    'a type alone': (
        contributing('LayerHandler', 'handles = dict', *RESIZES),
        r'handles dict; expected a tuple .*, as in handles = \(dict,\)',
    ),
    'something else among the types': (
        contributing('LayerHandler', 'handles = (dict, 3)', *RESIZES),
        'handles 3; expected a type of modules or its full name',
    ),
    'half a name': (
        contributing('LayerHandler', 'handles = ("PReLU",)', *RESIZES),
        "handles 'PReLU', which is not a full name; expected one such as 'package.module.PReLU'",
    ),
}


class TestBrokenPlugins:
    @pytest.mark.parametrize(('text', 'message'), BROKEN.values(), ids=BROKEN)
    def test_the_error_names_the_file_and_the_fault(
        self, tmp_path: Path, text: str, message: str
    ) -> None:
        file = write_plugin(tmp_path, 'broken.py', text)
        with pytest.raises(PluginError, match=f'(?s){message}') as raised:
            load_plugins([tmp_path])
        assert str(file) in str(raised.value)
        assert str(raised.value).endswith(
            '\nTo continue without this plugin, set EASYPRUNER_DISABLE_PLUGINS=broken in the '
            'environment; or skip all that cannot be loaded, by --skip-broken-plugins where a '
            'command has it, or by easypruner.plugins.load_plugins(skip_broken=True)'
        )

    @pytest.mark.parametrize(('text', 'message'), BROKEN.values(), ids=BROKEN)
    def test_it_can_be_skipped(self, tmp_path: Path, text: str, message: str) -> None:
        write_plugin(tmp_path, 'broken.py', text)
        write_source(tmp_path, 'Whole')
        plugins = load_plugins([tmp_path], skip_broken=True)
        assert [(p.name, p.origin) for p in plugins.skipped] == [
            ('broken', str(tmp_path / 'broken.py'))
        ]
        assert 'Whole' in names(plugins)
        assert len(plugins.plugins) == len(load_plugins().plugins) + 1
        plugins.manager.check_pending()

    def test_the_traceback_begins_in_the_plugin(self, tmp_path: Path) -> None:
        file = write_plugin(tmp_path, 'broken.py', 'raise OSError("disk on fire")')
        with pytest.raises(PluginError) as raised:
            load_plugins([tmp_path])
        first = str(raised.value).splitlines()[1]
        assert first == f'  File "{file}", line 1, in <module>'

    def test_a_missing_custom_import_is_an_error_unless_allowed(self) -> None:
        with pytest.raises(PluginError, match='there_is_no_such_module'):
            load_plugins(custom_imports=['there_is_no_such_module'])
        allowed = {'imports': ['there_is_no_such_module'], 'allow_failed_imports': True}
        assert [p.name for p in load_plugins(custom_imports=allowed).skipped] == [
            'there_is_no_such_module'
        ]

    def test_a_custom_import_needs_no_hook(self) -> None:
        assert names(load_plugins(custom_imports=['json'])) == names(load_plugins())


class TestClashes:
    @pytest.mark.in_ci
    def test_two_classes_of_one_name_name_both_origins(self, tmp_path: Path) -> None:
        one = write_source(tmp_path, 'Same', 'one.py')
        two = write_source(tmp_path, 'Same', 'two.py')
        with pytest.raises(PluginError, match="two plugins contribute a mask source 'Same'") as e:
            load_plugins([tmp_path])
        assert str(one) in str(e.value)
        assert str(two) in str(e.value)

    def test_a_built_in_cannot_be_replaced_by_accident(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'BNScale', 'mine.py')
        with pytest.raises(PluginError, match=r'easypruner_plugins\.bn_scale'):
            load_plugins([tmp_path])
        assert 'mine.py' in origin(load_plugins([tmp_path], disable=['bn_scale']), 'BNScale')

    def test_kinds_have_names_of_their_own(self, tmp_path: Path) -> None:
        write_source(tmp_path, 'Macs', 'mine.py')
        load_plugins([tmp_path])
        assert MASK_SOURCES.classes['Macs'] is not BUDGETS.classes['Macs']

    def test_one_class_may_come_from_two_plugins(self, tmp_path: Path) -> None:
        write_plugin(
            tmp_path,
            'again.py',
            'from easypruner import hookimpl\n'
            'from easypruner_plugins.macs import Macs\n'
            '@hookimpl\ndef easypruner_components(): return [Macs]\n',
        )
        assert origin(load_plugins([tmp_path]), 'Macs') == 'built in (easypruner_plugins.macs)'


class TestDisabling:
    def test_a_disabled_plugin_is_not_even_imported(self, tmp_path: Path) -> None:
        write_plugin(tmp_path, 'broken.py', 'raise OSError("disk on fire")')
        plugins = load_plugins([tmp_path], disable=['broken', 'bn_scale'])
        assert 'BNScale' not in names(plugins)
        assert not plugins.skipped

    def test_by_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv('EASYPRUNER_DISABLE_PLUGINS', 'macs, unknown_one')
        assert 'Macs' not in names(load_plugins())

    def test_disabling_an_unknown_name_is_an_error(self) -> None:
        with pytest.raises(PluginError, match=r"there is no plugin 'bn_scal' .*'bn_scale'"):
            load_plugins(disable=['bn_scal'])


def _components(tmp_path: Path) -> None:
    write_source(tmp_path, 'Hooked')
    load_plugins([tmp_path])
    graph = easypruner.trace(Plain(), example_inputs())
    source = build(MASK_SOURCES, {'type': 'Hooked', 'budget': {'type': 'Ratio', 'keep': 0.5}})
    masks = source.select(graph, Context())
    masks.check(graph)
    assert masks.removed_units == sum(group.size for group in graph.groups.values()) // 2
    for mask in masks.values():  # the score of a unit is its index, so the last units are kept
        assert mask.tolist() == sorted(mask.tolist())


def _configure_runner(tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        'configures.py',
        'from easypruner import hookimpl\n@hookimpl\n'
        'def easypruner_configure_runner(runner, state): runner.append(state)\n',
    )
    runner: list[str] = []
    load_plugins([tmp_path]).manager.hook.easypruner_configure_runner(runner=runner, state='here')
    assert runner == ['here']


def _report(tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        'reports.py',
        'from easypruner import hookimpl\n'
        'from easypruner.report.result import Artifact\n'
        '@hookimpl\n'
        'def easypruner_report(runs):\n'
        '    return [Artifact("Number of runs", columns=("n",), rows=((str(len(runs)),),))]\n',
    )
    (artifact,) = collect_artifacts(load_plugins([tmp_path]).manager, [])
    assert (artifact.name, artifact.rows) == ('Number of runs', (('0',),))


EXERCISES: dict[str, Callable[[Path], None]] = {
    'easypruner_components': _components,
    'easypruner_configure_runner': _configure_runner,
    'easypruner_report': _report,
}


@pytest.mark.parametrize('hook', HOOKS)
def test_every_hook_reaches_a_plugin(hook: str, tmp_path: Path) -> None:
    EXERCISES[hook](tmp_path)


def test_plugins_are_immutable() -> None:
    plugins = load_plugins()
    with pytest.raises(dataclasses.FrozenInstanceError):
        plugins.components = ()  # type: ignore[misc]


@pytest.fixture
def copied_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the built-ins that is imported instead of the installed ones."""
    import easypruner_plugins

    load_plugins()  # so that all of them are imported, and restored after the test
    copy = tmp_path / 'easypruner_plugins'
    shutil.copytree(next(iter(easypruner_plugins.__path__)), copy)
    for name in [n for n in sys.modules if n.split('.')[0] == 'easypruner_plugins']:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    return copy


# No built-in imports another one, so that every fourth stands for all.
@pytest.mark.parametrize(
    'deleted',
    [
        pytest.param(name, marks=[] if number % 4 == 0 else pytest.mark.slow)
        for number, name in enumerate(BUILT_INS)
    ],
)
def test_deleting_a_built_in_leaves_the_others_working(deleted: str, copied_plugins: Path) -> None:
    everything = load_plugins(disable=[deleted])
    sys.modules.pop(f'easypruner_plugins.{deleted}', None)
    (copied_plugins / f'{deleted}.py').unlink()
    plugins = load_plugins()
    assert names(plugins) == names(everything)
    assert {Path(p.file).parent for p in plugins.plugins if p.name in BUILT_INS} == {copied_plugins}
    graph = easypruner.trace(Plain(), example_inputs())
    for source, budget in _pairs(plugins):
        build(MASK_SOURCES, {'type': source, 'budget': budget}).select(graph, Context()).check(
            graph
        )


def test_no_built_in_imports_another() -> None:
    import easypruner_plugins

    for file in Path(next(iter(easypruner_plugins.__path__))).glob('[!_]*.py'):
        text = file.read_text(encoding='utf-8')
        assert not re.search(r'easypruner_plugins|^\s*from \.(?!_)', text, re.MULTILINE), file


def test_a_built_in_may_have_helpers(copied_plugins: Path) -> None:
    write_plugin(copied_plugins, '_helper.py', 'raise OSError("not a plugin")')
    assert '_helper' not in {plugin.name for plugin in load_plugins().plugins}


def _pairs(plugins: Plugins) -> list[tuple[str, dict[str, object]]]:
    budgets = {'Macs': {'keep': 0.5}, 'Ratio': {'keep': 0.5}, 'Threshold': {'value': 0.1}}
    return [
        (source, {'type': budget, **limit})
        for source in sorted({'BNScale', 'L1Norm', 'Random'} & names(plugins))
        for budget, limit in budgets.items()
        if budget in names(plugins)
    ]
