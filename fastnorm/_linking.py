"""How compiled functions become part of others: two compilers beside Numba's usual one.

Numba optimizes a function on its own, emits machine code for it, wraps it for Python, and does so again
for every caller that it is linked into. That costs time, and it costs determinism: the code of one chunk
body inside a serial and inside a parallel driver came out different, with other bits in the results.

- ``Inlined``  : functions that only ever become part of a caller: types and LLVM IR, nothing more.
- ``Separate`` : chunk bodies: optimized once, and called by their symbol from every driver. A driver in
  the disk cache names the bodies it needs, and they are loaded before it.

Together with accessors that are intrinsics (`element.storage`), the first batch norm of rows, with an empty
cache, went from 14 s to 6 s, and of planes from 6 s to 3 s. Passes, events, branches and machine code that nobody
needs (`Lean`, `_PruneNone`, `_InlinedLibrary`) were another third of what was left.
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import _dynfunc
from numba.core import cgutils, codegen, compiler, errors, lowering, typed_passes, types, untyped_passes
from numba.core.analysis import dead_branch_prune
from numba.core.compiler_machinery import FunctionPass, PassManager, register_pass
from numba.core.typed_passes import NativeLowering
from numba.core.types.containers import BaseTuple, UniTuple
from numba.core.types.misc import NoneType, Omitted, Optional
from numba.extending import intrinsic


class Needed(NamedTuple):
    """A chunk body that other code calls by its symbol."""

    module: str
    name: str
    arguments: tuple[Any, ...]
    symbol: str


_bodies: dict[str, Needed] = {}


def register(result: Any) -> None:
    """Make known that a chunk body can be called by its symbol in this process."""
    described = result.fndesc
    _bodies[described.llvm_func_name] = Needed(described.modname, described.qualname, tuple(described.argtypes), described.llvm_func_name)


def needs_of(library: Any) -> list[Needed]:
    """The chunk bodies that a library calls."""
    return [_bodies[f.name] for f in library._final_module.functions if f.is_declaration and f.name in _bodies]


def load(needs: list[Needed]) -> None:
    """Compile or load chunk bodies. Raises LookupError if one has another symbol than was noted."""
    for need in needs:
        getattr(importlib.import_module(need.module), need.name).compile(need.arguments)
        if need.symbol not in _bodies:
            raise LookupError(need.symbol)


class _InlinedLibrary(codegen.JITCodeLibrary):
    """LLVM IR as it was lowered, to be linked into a library that is optimized as a whole."""

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _optimize_final_module(self) -> None:
        pass

    def _finalize_final_module(self) -> None:
        """Not given to the engine, which made machine code of all it had with the next body: a sixth of the time of a first layer norm."""
        self._finalize_dynamic_globals()
        self._finalized = True


class _SeparateLibrary(codegen.JITCodeLibrary):
    """Optimized once; a library that links it receives a reference to its symbol."""

    _shared_module: Any

    def _optimize_functions(self, ll_module: Any) -> None:
        ll_module.data_layout = self._codegen._data_layout

    def _get_module_for_linking(self) -> Any:
        self._ensure_finalized()
        if self._shared_module is None:
            self._shared_module = binding.parse_assembly(str(self._codegen._create_empty_module(self.name)))
        return self._shared_module


class _BorrowingLower(lowering.Lower):
    """Arrays that come in are lent by the caller: no reference to them is counted.

    Counters are changed by locked instructions, which wait until all stores before them are done. Ten of them per row,
    left by the inlined loops, took 60 % of the time of RMS norm of rows of 256.
    """

    def extract_function_arguments(self) -> Any:
        super().extract_function_arguments()
        self.fnargs: list[Any] = [self._lent(kind, value) for kind, value in zip(self.fndesc.argtypes, self.fnargs, strict=True)]
        return self.fnargs

    def _lent(self, kind: Any, value: Any) -> Any:
        if isinstance(kind, types.Array):
            array = self.context.make_array(kind)(self.context, self.builder, value)
            array.meminfo = array.meminfo.type(None)
            return array._getvalue()
        if isinstance(kind, BaseTuple):
            for k, member in enumerate(kind.types):
                lent = self._lent(member, self.builder.extract_value(value, k))
                value = self.builder.insert_value(value, lent, k)
        return value


class _Lowering(NativeLowering):
    """Lower into a library of another class, without the ways in for Python and C."""

    library_class: type

    def prepare(self, state: Any) -> None:
        state.library = self.library_class(state.targetctx.codegen(), state.func_id.func_qualname)
        state.flags.no_cpython_wrapper = True
        state.flags.no_cfunc_wrapper = True


@register_pass(mutates_CFG=True, analysis_only=False)
class _InlinedLowering(_Lowering):
    _name = "fastnorm_inlined_lowering"
    library_class = _InlinedLibrary

    def run_pass(self, state: Any) -> bool:
        self.prepare(state)
        state.flags.no_compile = True
        if isinstance(state.return_type, types.Array) and not state.flags.nrt:
            raise errors.TypingError(f"{state.func_id.func_qualname} counts no references and returns an array; make it a maker")
        super().run_pass(state)
        state.library.finalize()
        lowered = state["cr"]
        # The dispatcher files overloads under a built-in function; this one has no code and is never called.
        described = lowered.fndesc
        key = _dynfunc.make_function(described.lookup_module(), described.qualname, "inlined", 0, lowered.env, ())
        state.targetctx.insert_user_function(key, described, [state.library])
        state["cr"] = lowered._replace(cfunc=key)
        return True


@register_pass(mutates_CFG=True, analysis_only=False)
class _SeparateLowering(_Lowering):
    _name = "fastnorm_separate_lowering"
    library_class = _SeparateLibrary
    lowering_class = _BorrowingLower

    def run_pass(self, state: Any) -> bool:
        self.prepare(state)
        state.library.enable_object_caching()
        # Part of the symbol. Numba counts functions here, so that every process has its own names.
        state.func_id.unique_id = 0
        super().run_pass(state)
        register(state["cr"])
        return True


class _Something(NamedTuple):
    """Of an argument that is not None, as Numba's `dead_branch_prune` describes a literal."""

    literal_type: Any


@register_pass(mutates_CFG=True, analysis_only=False)
class _PruneNone(untyped_passes.SSACompliantMixin, FunctionPass):
    """Of ``if x is None``, where x is an argument, only the branch that is taken is compiled.

    Numba does so where x is None. Where it is not, what is for None was compiled, too, and values of both branches were optional.
    """

    _name = "fastnorm_prune_none"

    def __init__(self) -> None:  # abstract
        super().__init__()

    def run_pass(self, state: Any) -> bool:
        dead_branch_prune(
            state.func_ir, [kind if isinstance(kind, NoneType | Optional | Omitted) else _Something(kind) for kind in state.args]
        )
        return True


# What this library's kernels have nothing for: with blocks, functions in functions, literal arguments, expressions of whole arrays.
_UNUSED: set[type] = {
    untyped_passes.WithLifting,
    untyped_passes.InlineClosureLikes,
    untyped_passes.RewriteSemanticConstants,
    untyped_passes.RewriteDynamicRaises,
    untyped_passes.MakeFunctionToJitFunction,
    untyped_passes.InlineInlinables,
    untyped_passes.FindLiterallyCalls,
    untyped_passes.LiteralUnroll,
    untyped_passes.LiteralPropagationSubPipelinePass,
    typed_passes.InlineOverloads,
    typed_passes.NopythonRewrites,
    typed_passes.NoPythonSupportedFeatureValidation,
    typed_passes.AnnotateTypes,
    typed_passes.DumpParforDiagnostics,
}


class _Passes(PassManager):
    """Without the events, timers and descriptions that Numba makes around every pass of every function."""

    def _runPass(self, index: int, step: Any, state: Any) -> None:
        step.analysis = self._analysis
        step.run_initialization(state)
        step.run_pass(state)
        step.run_finalizer(state)


class Lean(compiler.CompilerBase):
    """Numba's usual compiler without the passes that this library has no use for."""

    lowering: type = NativeLowering

    def define_pipelines(self) -> list[Any]:
        usual = compiler.DefaultPassBuilder.define_nopython_pipeline(self.state)
        manager = _Passes(usual.pipeline_name)
        instead = {NativeLowering: self.lowering, untyped_passes.DeadBranchPrune: _PruneNone}
        manager.passes = [(instead.get(step, step), text) for step, text in usual.passes if step not in _UNUSED]
        manager.finalize()
        return [manager]


class Inlined(Lean):
    lowering = _InlinedLowering


class Separate(Lean):
    lowering = _SeparateLowering


_CODE = ir.FunctionType(ir.IntType(32), [ir.IntType(8).as_pointer(), ir.IntType(64)])


@intrinsic(prefer_literal=False)
def job_of(typing_context: Any, body: Any, arguments: Any) -> Any:
    """A chunk body and its arguments but the last, the chunk, as two addresses: `call_job` calls it, in any thread.

    Valid until the calling function returns.
    """
    called = body.get_call_type(typing_context, (*arguments.types, types.intp), {})

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        result = body.dispatcher.get_compile_result(called)
        context.active_code_library.add_linking_library(result.library)
        module, given = builder.module, values[1]
        place = cgutils.alloca_once_value(builder, given)
        code = ir.Function(module, _CODE, module.get_unique_name("job"))
        code.linkage = "internal"
        inside = ir.IRBuilder(code.append_basic_block())
        taken = inside.load(inside.bitcast(code.args[0], given.type.as_pointer()))
        members = [inside.extract_value(taken, k) for k in range(len(arguments.types))]
        callee, kinds = context.declare_function(module, result.fndesc), result.fndesc.argtypes
        status, _ = context.call_conv.call_function(inside, callee, result.fndesc.restype, kinds, [*members, code.args[1]])
        inside.ret(status.code)
        word = ir.IntType(64)
        return context.make_tuple(builder, signature.return_type, [builder.ptrtoint(code, word), builder.ptrtoint(place, word)])

    return UniTuple(types.int64, 2)(body, arguments), generate


@intrinsic
def call_job(typing_context: Any, code: Any, place: Any, chunk: Any) -> Any:
    """0, or another number if the chunk body has met an error."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        code = builder.inttoptr(values[0], _CODE.as_pointer())
        return builder.call(code, [builder.inttoptr(values[1], _CODE.args[0]), values[2]])

    return types.int32(types.int64, types.int64, types.int64), generate


@intrinsic
def call_team(typing_context: Any, launch: Any, code: Any, place: Any, threads: Any) -> Any:
    """Call a job, of `job_of`, in every thread of a team of OpenMP, the caller among them, and wait for all.

    launch : address of GNU OpenMP's GOMP_parallel(function, data, threads, flags), which LLVM's and Intel's have too
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        module, word, pointer = builder.module, ir.IntType(64), ir.IntType(8).as_pointer()
        member = ir.Function(module, ir.FunctionType(ir.VoidType(), [pointer]), module.get_unique_name("member"))
        member.linkage = "internal"
        inside = ir.IRBuilder(member.append_basic_block())
        taken = inside.load(inside.bitcast(member.args[0], ir.LiteralStructType([word, word]).as_pointer()))
        inside.call(
            inside.inttoptr(inside.extract_value(taken, 0), _CODE.as_pointer()),
            [inside.inttoptr(inside.extract_value(taken, 1), pointer), word(0)],
        )
        inside.ret_void()
        data = cgutils.alloca_once_value(builder, cgutils.pack_struct(builder, values[1:3]))
        number = ir.IntType(32)
        parallel = ir.FunctionType(ir.VoidType(), [member.type, pointer, number, number])
        called = builder.inttoptr(values[0], parallel.as_pointer())
        builder.call(called, [member, builder.bitcast(data, pointer), builder.trunc(values[3], number), number(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64), generate
