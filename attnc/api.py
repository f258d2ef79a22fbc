"""`attnc.load`: a spec as a function of torch tensors that explains, compiles, verifies itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attnc.calls import Call, bind_call, signature
from attnc.dsl import load_text
from attnc.errors import AttncError
from attnc.ir.bind import check_params
from attnc.ir.cascade import Cascade
from attnc.ir.frame import ParamValue
from attnc.ir.specialise import specialise
from attnc.library import resolve

if TYPE_CHECKING:
    from types import ModuleType

    import torch
    from torch import Tensor
    from torch.nn.attention.flex_attention import BlockMask

    from attnc.compilation import Compilation
    from attnc.explain import Explanation
    from attnc.ir.plan import Plan
    from attnc.picture import Picture
    from attnc.predict import Predicted
    from attnc.predict_arrays import ArrayPrediction
    from attnc.predict_sweep import PredictedSweep
    from attnc.runtime.verify import VerifyReport
    from attnc.tile_orders import TokenOrders
    from attnc.tile_shapes import TileSizes
    from attnc.tile_sweep import Ranges, TileSweep
    from attnc.tiles import Tiles
    from attnc.tune import Tuning


def load(name_or_path: str | Path, **params: object) -> Attention:
    """A library spec by name, or one of yours by its path; `params` are those that it declares.

    Raises AttncError: E701 .. E704 no such spec, E0xx .. E4xx mistakes in it, E506 .. E509 wrong
    parameters.
    """
    text, file = resolve(str(name_or_path))
    cascade = load_text(text, file)
    return Attention(cascade, check_params(cascade, params), frozenset(params))


@dataclass(frozen=True)
class Attention:
    """A spec with the values of its parameters. Calling it computes its outputs.

    `attn(q, k, v, bias=bias, MY=48)`: tensors in the spec's order by position, or by name; extents
    that the tensors do not tell by upper-case name. Tensors may have any strides. On the CPU the
    plan is run tile by tile in torch, on a GPU the emitted kernel.
    """

    cascade: Cascade
    params: Mapping[str, ParamValue] = field(default_factory=dict)
    # The parameters that were given, not left at their defaults.
    given: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.cascade.name

    @cached_property
    def specialised(self) -> Cascade:
        """The cascade with its const params put in."""
        return specialise(self.cascade, self.params)

    @cached_property
    def plan(self) -> Plan:
        """How it is computed. Raises AttncError E901 for what is not lowered yet."""
        return _plan(self.specialised, self.specialised.source)

    @cached_property
    def module(self) -> ModuleType:
        """The emitted module, imported from the disk cache; with tiles chosen for the GPU here."""
        from attnc.codegen import emit
        from attnc.runtime.cache import Cache, content_key
        from attnc.runtime.cost.choices import stored_choices
        from attnc.runtime.modules import load_module
        from attnc.runtime.tuning import gpu_in_use

        gpu = gpu_in_use()
        chosen = () if gpu is None else stored_choices(self.plan, gpu, self.run_time_params)
        source, cache = emit(self.plan, chosen=chosen), Cache()
        file, key = f"{self.name}.py", content_key(source)
        folder = cache.put(key, {file: source.encode()}) if cache.get(key) is None else None
        return load_module((folder or cache.path(key)) / file)

    @cached_property
    def run_time_params(self) -> Mapping[str, ParamValue]:
        """The parameters that are passed at run time: all that are not const."""
        return {p.name: self.params[p.name] for p in self.specialised.params}

    # One tensor or a tuple of them: which, only the spec knows, so type checkers cannot.
    def __call__(self, *tensors: Tensor, **named: Tensor | int) -> Any:
        """The output, or a tuple of the outputs in the spec's order, in the inputs' dtype.

        Raises AttncError E501 .. E517 where the arguments do not fit, with each rank's binding, and
        when a gradient is asked for (E515).
        """
        from attnc.runtime.launch import run

        call = bind_call(self.cascade, tensors, named)
        try:
            found = run(
                self.plan, lambda: self.module, call.tensors, self.run_time_params, call.extents
            )
        except ValueError as e:  # of the emitted module, which knows no AttncError
            raise AttncError("E517", f"the kernel of `{self.name}` refuses the call: {e}") from None
        return self._outputs(found)

    def reference(self, *tensors: Tensor, **named: Tensor | int) -> Any:
        """The same in float64, from the cascade as written: what everything is compared with."""
        from attnc.runtime.reference import reference

        call = bind_call(self.cascade, tensors, named)
        return self._outputs(
            reference(self.cascade, call.tensors, dict(self.params), _named(call, named))
        )

    def explain(self, *, check: bool = False) -> Explanation:
        """Passes, laws, stages and work: what `attnc explain` prints.

        `check`: every law is proved again by sympy and tried at random points, and the derived
        cascade is run against the written one.
        """
        from attnc.explain import explain

        return explain(self.specialised, self.plan, check=check)

    def compile(
        self,
        shape: Mapping[str, int] | None = None,
        *,
        target: str | Iterable[str] = "h200",
        dtype: str = "bf16",
        to: str | Path = ".",
        config: Mapping[str, int] | None = None,
    ) -> Compilation:
        """Write the standalone module and its report into the folder `to`, and really compile it.

        `shape`: extents by upper-case name, those that matter; `target`: one or several GPUs, which
        need not be there (none: the source only); `dtype`: `fp32`, `fp16` or `bf16`. The cost model
        chooses the kernels' tiles for that; `config` fixes some of `m`, `n` (places of a tile),
        `warps`, `stages` (depth of the load pipeline).
        """
        from attnc.compilation import compile_plan

        targets = (target,) if isinstance(target, str) else tuple(target)
        return compile_plan(
            self.plan,
            self.run_time_params,
            shape or {},
            dtype=dtype,
            targets=targets,
            folder=Path(to),
            config=config,
        )

    def tune(
        self,
        shape: Mapping[str, int] | None = None,
        /,
        *,
        dtype: str = "bf16",
        target: str | None = None,
        **captured: Tensor,
    ) -> Tuning:
        """Measure the model's best eight configurations of each kernel on the GPU; keep the winner.

        Later calls and compilations use it. `shape`: extents by upper-case name, as in `compile`;
        `target`: what the GPU is, if it is none of the built-in ones; captured tensors by name,
        random where they are not given. Raises AttncError E832 where there is no GPU.
        """
        from attnc.compilation import complete_shape
        from attnc.runtime.cost.call import Call as Costed
        from attnc.tune import tune

        extents = complete_shape(self.plan, shape or {}, self.run_time_params)
        call = Costed(self.plan, self.run_time_params, extents, dtype)
        found = tune(call, target, captured)
        self.__dict__.pop("module", None)
        return found

    def predict(
        self,
        shape: Mapping[str, int] | None = None,
        /,
        *,
        target: str = "h200",
        dtype: str = "bf16",
        fidelity: str = "machine-code",
        config: Mapping[str, int] | None = None,
        calibration: str | Path | None = None,
        share: float | None = None,
        **captured: Tensor,
    ) -> Predicted | ArrayPrediction:
        """The time that a call takes on a GPU that need not be there: what `attnc predict` prints.

        `shape`: extents by upper-case name, those that matter; `target`: a GPU, a file that
        describes one, or a modelled array (`fusemax`); `fidelity`: `tiles`, `roofline`, or
        `machine-code`, which compiles what was not compiled before; `config`: as in `compile`;
        `calibration`: a file of what was measured on the GPU; `share`: of a model's time that it
        spends in attention. Captured tensors that a mask reads are given by name; data that is
        missing hides nothing. Raises AttncError: E50x the shape does not fit the spec, E80x no such
        target, E84x what an array does not run, E851 .. E855 what cannot be predicted.
        """
        from attnc.predict import predict_attention
        from attnc.predict_setup import make_setup
        from attnc.runtime.spatial.designs import named_designs

        if designs := named_designs([target]):
            from attnc.predict_arrays import predict_array

            return predict_array(self, shape or {}, designs[0], share=share)
        setup = make_setup(
            target,
            dtype=dtype,
            fidelity=fidelity,
            calibration=calibration,
            config=config,
            share=share,
        )
        return predict_attention(self, shape or {}, setup, captured)

    def predict_sweep(
        self,
        shape: Mapping[str, int],
        ranges: Mapping[str, Iterable[int | float]],
        /,
        *,
        target: str | Iterable[str] = "h200",
        budget_ms: float | None = None,
        dtype: str = "bf16",
        fidelity: str = "machine-code",
        config: Mapping[str, int] | None = None,
        calibration: str | Path | None = None,
        share: float | None = None,
        **captured: Tensor,
    ) -> PredictedSweep:
        """The same for each combination of values of extents and params, on one or several GPUs.

        `{"M": (4096, 8192), "window": range(512, 4097, 512), "stride[0]": (1, 8)}`; a value stands
        for all items of a tuple param. `budget_ms`: says which settings take no longer. Raises
        AttncError E854 for what cannot be swept.
        """
        from attnc.predict_setup import make_setup
        from attnc.predict_sweep import predict_sweep

        setups = [
            make_setup(
                one,
                dtype=dtype,
                fidelity=fidelity,
                calibration=calibration,
                config=config,
                share=share,
                budget_ms=budget_ms,
            )
            for one in ((target,) if isinstance(target, str) else target)
        ]
        values = {name: tuple(each) for name, each in ranges.items()}
        return predict_sweep(self, shape, values, setups, captured)

    def verify(
        self, shape: Mapping[str, int] | None = None, *, dtype: str = "fp32"
    ) -> VerifyReport:
        """Run the emitted kernels on awkward inputs and compare with the cascade in float64.

        On a GPU if there is one, else in Triton's interpreter. `shape` fixes extents by upper-case
        name; lengths among the parameters that were not given are made small, so that masks matter.
        """
        from attnc.codegen import emit
        from attnc.runtime.dtypes import torch_dtype
        from attnc.runtime.verify import verify

        given = {n: v for n, v in self.run_time_params.items() if n in self.given}
        return verify(
            self.plan,
            lambda: emit(self.plan),
            dtype=torch_dtype(dtype),
            params=given,
            shape=shape,
        )

    def tiles(
        self,
        shape: Mapping[str, int],
        /,
        *,
        tile: TileSizes | None = None,
        keys: str = "static",
        flat: bool = False,
        **captured: Tensor,
    ) -> Tiles:
        """Count the tiles that the mask visits, exactly: what `attnc tiles` prints.

        `shape`: extents by upper-case name, those that the mask depends on; `tile`: per rank, one
        size per component (else 128 queries and 64 keys, spread over them); `keys`: `static` key
        tiles lie on a fixed grid, `dynamic` ones start at the first key that the query tile sees;
        `flat`: tiles of the flattened ranks. Raises AttncError: E50x what the mask needs is
        missing, E524 .. E526 tiles that do not fit.
        """
        from attnc.masks import masks
        from attnc.tiles import tiles

        found = masks(self.plan, self.run_time_params, shape, captured)
        return tiles(self.cascade, found, tile=tile or {}, keys=keys, flat=flat)

    def sweep_tiles(
        self,
        shape: Mapping[str, int],
        ranges: Ranges,
        /,
        *,
        tile: TileSizes | None = None,
        keys: str = "static",
        flat: bool = False,
        **captured: Tensor,
    ) -> TileSweep:
        """The same for each combination of values: `{"stride": range(1, 33)}`, `{"stride[0]": ..}`.

        A value stands for all items of a tuple param. Raises AttncError E531 for no int param.
        """
        from attnc.tile_sweep import sweep_tiles

        return sweep_tiles(self, shape, ranges, captured, tile=tile or {}, keys=keys, flat=flat)

    def tile_orders(
        self,
        shape: Mapping[str, int],
        /,
        *,
        tile: TileSizes | None = None,
        keys: str = "static",
        **captured: Tensor,
    ) -> TokenOrders:
        """Compare orders of the tokens of a plane or volume by the flat tiles that they visit.

        `tile`: tokens per rank (else 128); `keys` as for `tiles`. Raises AttncError E533 where
        there is no grid.
        """
        from attnc.masks import masks
        from attnc.tile_orders import tile_orders

        found = masks(self.plan, self.run_time_params, shape, captured)
        return tile_orders(self.cascade, found, tile or {}, keys)

    def block_mask(
        self,
        shape: Mapping[str, int],
        /,
        block: int | tuple[int, int] = 128,
        device: torch.device | str | None = None,
        **captured: Tensor,
    ) -> BlockMask:
        """The mask as FlexAttention's `BlockMask`, equal to what `create_block_mask` makes of it.

        It comes from tile classes, never from M x N points; by its own format it holds an index for
        each pair of blocks. `shape`: extents by upper-case name, those that the mask depends on;
        `block`: tokens, or (queries, keys), of flattened ranks. The first rank of the grid is the
        batch, the others are the heads.
        Raises AttncError: E50x what the mask needs is missing, E521 a block that is no size, E522
        several masks.
        """
        from attnc.masks import masks
        from attnc.runtime.block_mask import block_mask

        found = masks(self.plan, self.run_time_params, shape, captured)
        return block_mask(self.plan, found, captured, block, device)

    def mask(
        self,
        path: str | Path,
        shape: Mapping[str, int],
        /,
        *,
        tile: TileSizes | None = None,
        query: Mapping[str, int] | None = None,
        at: Mapping[str, int] | None = None,
        keys: str = "static",
        flat: bool = False,
        **captured: Tensor,
    ) -> Picture:
        """Draw the mask with the classes of its tiles, as SVG or PNG by the suffix of `path`.

        `shape`, `tile`, `keys`, `flat`: as in `tiles`; the matrix of tiles is on the fixed grid.
        `query`: coordinates of the query to show where ranks have components (else the middle);
        `at`: the head, batch, .. to show (else the first). Raises AttncError: E50x what the mask
        needs is missing, E523 .. E526 a coordinate or tile that is none, E713, E714 the file.
        """
        from attnc.figure import check_suffix
        from attnc.mask_view import first_mask, mask_view
        from attnc.masks import masks
        from attnc.picture import draw

        check_suffix(Path(path))
        mask = first_mask(masks(self.plan, self.run_time_params, shape, captured), self.cascade)
        view = mask_view(
            mask,
            self.plan.cascade,
            tile or {},
            query=query or {},
            at=at or {},
            keys=keys,
            flat=flat,
        )
        return draw(view, Path(path))

    def _outputs(self, found: Mapping[str, Tensor]) -> Any:
        outputs = tuple(found[name] for name in self.cascade.outputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def __repr__(self) -> str:
        params = "".join(f", {name}={value}" for name, value in self.params.items())
        return f"<attention {signature(self.cascade)}{params}>"


# Two attentions of one spec differ in their params, and seldom in their plan. What a plan cites is
# in the source, which is no part of a cascade's identity.
@lru_cache(maxsize=64)
def _plan(cascade: Cascade, source: str) -> Plan:
    from attnc.ir.pipeline import plan

    return plan(cascade)


def _named(call: Call, named: Mapping[str, object]) -> dict[str, int]:
    """The extents that were given by name."""
    return {n: v for n, v in named.items() if n not in call.tensors and isinstance(v, int)}
